"""Items as the messages of a chat completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.responses.calls import safe_arguments
from gateway.responses.sealed import unseal
from gateway.responses.tools import file_search

__all__ = ["chat_messages", "check_calls", "led"]

Parts = Sequence[Mapping[str, Any]]
NameOfTool = Callable[[str, str], str]
"""An MCP server's label and a tool's name to the name that the model knows it by."""


def check_calls(items: Sequence[Mapping[str, Any]]) -> None:
    """Every call of a function needs its output and every output its call: chat templates can't
    render the one without the other. Raises ``InvalidRequest`` in OpenAI's words.
    """
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    outputs = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    for item in items:
        if item["type"] == "function_call_output" and item["call_id"] not in calls:
            raise InvalidRequest(
                f"No tool call found for function call output with call_id {item['call_id']}.",
                param="input",
            )
        if item["type"] == "function_call" and item["call_id"] not in outputs:
            raise InvalidRequest(
                f"No tool output found for function call {item['call_id']}.", param="input"
            )


def chat_messages(
    items: Sequence[Mapping[str, Any]],
    parts: Callable[[Parts], Any],
    name_of: NameOfTool,
    *,
    room: int,
) -> list[dict[str, Any]]:
    """``parts`` makes a chat message's content of an item's; ``room`` bounds what of an earlier
    search is shown again, in characters.

    The thoughts of earlier answers are left out, as models expect; those that led to calls
    without an answer yet go with the calls.
    """
    messages: list[dict[str, Any]] = []
    last_user = max(
        (n for n, i in enumerate(items) if i["type"] == "message" and i["role"] != "assistant"),
        default=-1,
    )
    thought: list[str] = []
    for place, item in enumerate(items):
        match item["type"]:
            case "message":
                message = {"role": _role(item["role"]), "content": parts(item["content"])}
                if item["role"] == "assistant":
                    message["content"] = _said(item["content"])
                    _think(message, thought, keep=place > last_user)
                thought = []
                messages.append(message)
            case "reasoning":
                thought.append(_thought(item))
            case "function_call":
                arguments = item["arguments"]
                call = _call(item["call_id"], item["name"], arguments)
                thought = _add_call(messages, call, thought, keep=place > last_user)
            case "function_call_output":
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": item["call_id"],
                        "content": parts(item["output"])
                        if not isinstance(item["output"], str)
                        else item["output"],
                    }
                )
            case "compaction":
                messages.append({"role": "user", "content": _summary(item)})
            case _:
                done = _hosted_call(item, name_of, room)
                if done is not None:
                    call, result = done
                    thought = _add_call(messages, call, thought, keep=place > last_user)
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return messages


def led(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """The messages after these words of the system's, all such at the beginning as one: some chat
    templates know no second.
    """
    words = [system] if system else []
    for first in messages:
        if first["role"] != "system" or not isinstance(first["content"], str):
            break
        words.append(first["content"])
    rest = messages[len(words) - bool(system) :]
    return [{"role": "system", "content": "\n\n".join(words)}, *rest] if words else messages


def _hosted_call(
    item: Mapping[str, Any], name_of: NameOfTool, room: int
) -> tuple[dict[str, Any], str] | None:
    """A call that the gateway ran, and what came of it; ``None`` for what a model isn't shown."""
    if item["type"] == "file_search_call":
        result = file_search.history(dict(item), room)
        if result is None:
            return None
        query = " ".join(item.get("queries") or ())
        arguments = msgspec.json.encode({"query": query}).decode()
        return _call(item["id"], "file_search", arguments), result
    if item["type"] == "mcp_call":
        name = name_of(item["server_label"], item["name"])
        error = item.get("error")
        result = item.get("output") or (f"Error: {_error_text(error)}" if error else "")
        return _call(item["id"], name, item["arguments"]), result
    return None


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        if isinstance(error.get("message"), str):
            return str(error["message"])
        content = error.get("content")
        if isinstance(content, list):
            return "\n".join(str(one.get("text", "")) for one in content if isinstance(one, dict))
    return str(error)


def _role(role: str) -> str:
    """Chat templates know no developers."""
    return "system" if role == "developer" else role


def _said(content: Parts) -> str:
    return "\n".join(
        str(part.get("text") or part.get("refusal") or "")
        for part in content
        if part["type"] in ("output_text", "input_text", "text", "refusal")
    )


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": safe_arguments(arguments)},
    }


def _thought(item: Mapping[str, Any]) -> str:
    if item.get("content"):
        return "".join(part["text"] for part in item["content"])
    try:
        return unseal(item.get("encrypted_content") or "")
    except InvalidRequest:
        return ""  # another server's, which nobody else can read; the conversation goes on


def _think(message: dict[str, Any], thought: list[str], *, keep: bool) -> None:
    if keep and thought:
        message["reasoning"] = "".join(thought)


def _add_call(
    messages: list[dict[str, Any]], call: dict[str, Any], thought: list[str], *, keep: bool
) -> list[str]:
    """Add a call to the assistant's message before it, or to a new one; the thoughts left over."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    _think(messages[-1], thought, keep=keep)
    messages[-1].setdefault("tool_calls", []).append(call)
    return []


def _summary(item: Mapping[str, Any]) -> str:
    return f"Summary of the conversation so far:\n{unseal(item['encrypted_content'])}"
