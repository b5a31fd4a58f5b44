"""What a server's tools and their results become: the port's own, within bounds."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import msgspec

from gateway.ports import ServedTool, ToolOutput, ToolServerFailed

__all__ = ["served_tool", "tool_output"]

MAX_NAME_CHARACTERS = 256


def served_tool(tool: types.Tool, max_bytes: int) -> ServedTool:
    """The tool. Raises ``ToolServerFailed`` for one that is too large to be shown to a model."""
    if not tool.name or len(tool.name) > MAX_NAME_CHARACTERS or "\x00" in tool.name:
        raise ToolServerFailed(
            f"It lists a tool whose name is empty or longer than {MAX_NAME_CHARACTERS} characters."
        )
    shown = ServedTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations=_dump(tool.annotations) if tool.annotations is not None else None,
    )
    if len(msgspec.json.encode(shown)) > max_bytes:
        raise ToolServerFailed(
            f"Its tool '{tool.name}' has a description and schemas of more than {max_bytes} bytes."
        )
    return shown


def tool_output(result: types.CallToolResult, max_bytes: int) -> ToolOutput:
    """The result as text, cut off at ``max_bytes`` with a notice, and the blocks that fit."""
    content: list[dict[str, Any]] = []
    left = max_bytes
    for block in result.content:
        dumped = _dump(block)
        left -= len(msgspec.json.encode(dumped))
        if left < 0:
            break
        content.append(dumped)
    texts = [_text_of(block) for block in result.content]
    if not result.content and result.structured_content is not None:
        texts = [msgspec.json.encode(result.structured_content).decode()]
    return ToolOutput(
        text=_cut("\n".join(texts), max_bytes), is_error=bool(result.is_error), content=content
    )


def _text_of(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent(text=text):
            return text
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case types.EmbeddedResource(resource=resource):
            return f"[resource {resource.uri}, {resource.mime_type or 'of unknown type'}]"
        case types.ResourceLink(uri=uri, name=name):
            return f"[resource {name}: {uri}]"
        case types.ImageContent(mime_type=kind) | types.AudioContent(mime_type=kind):
            return f"[{block.type} of type {kind}]"
    return "[content of another kind]"


def _cut(text: str, max_bytes: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode("utf-8")
    notice = f"\n[Cut off: {len(data)} bytes, of which {max_bytes} are kept.]"
    kept = data[: max(0, max_bytes - len(notice))].decode("utf-8", "ignore")
    return kept + notice


def _dump(model: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dumped
