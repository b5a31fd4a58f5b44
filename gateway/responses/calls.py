"""Calls of tools as the model writes them."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from gateway.http.validation import NOT_JSON
from gateway.items.parsing import item_id
from gateway.responses.run import leave
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import FileSearchTool, FunctionTool, McpTool
from gateway.responses.toolbox import Binding

__all__ = ["ToolCall", "safe_arguments"]

MAX_ARGUMENTS = 1024 * 1024


class ToolCall:
    """One call: begun, written, and ended; what runs it then fills its item.

    ``index`` is the item's place in the output, and ``None`` where the caller sees nothing of it.
    """

    def __init__(
        self,
        stream: ResponseStream,
        call_id: str | None,
        name: str,
        binding: Binding | None,
        refused: str | None,
    ) -> None:
        self.call_id = call_id or f"call_{uuid.uuid4().hex}"
        self.name = name
        self.binding = binding
        self.refused = refused
        """Why it isn't run; told to the model."""
        self.index: int | None = None
        self._stream = stream
        self._written: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self._written)

    @property
    def item(self) -> dict[str, Any]:
        assert self.index is not None  # a call that the caller sees
        return self._stream.run.output[self.index]

    @property
    def runs_here(self) -> bool:
        """Whether the gateway has something to do for it, if only to refuse it."""
        return self.refused is not None or (
            self.binding is not None and self.binding.hosted and not self.binding.approval
        )

    @classmethod
    def again(cls, stream: ResponseStream, index: int, binding: Binding) -> ToolCall:
        """The search at this place, which was interrupted."""
        item = stream.run.output[index]
        call = cls(stream, item["id"], binding.name, binding, None)
        call.index = index
        query = " ".join(item["queries"])
        call._written.append(msgspec.json.encode({"query": query}).decode())
        return call

    async def begin(self) -> None:
        if self.refused is not None or self.binding is None or self.binding.approval:
            return
        tool = self.binding.tool
        if isinstance(tool, FunctionTool):
            self.index = await self._stream.add(
                {
                    "id": item_id("function_call"),
                    "type": "function_call",
                    "status": "in_progress",
                    "call_id": self.call_id,
                    "name": self.name,
                    "arguments": "",
                }
            )
        elif isinstance(tool, McpTool):
            self.index = await self._stream.add(new_mcp_call(self.binding))
            await self._stream.about(self.index, "response.mcp_call.in_progress")
        elif isinstance(tool, FileSearchTool):
            self.index = await self._stream.add(
                {
                    "id": item_id("file_search_call"),
                    "type": "file_search_call",
                    "status": "in_progress",
                    "queries": [],
                    "results": None,
                }
            )
            await self._stream.about(self.index, "response.file_search_call.in_progress")
        else:
            self.index = await self._stream.add(
                {
                    "id": item_id("web_search_call"),
                    "type": "web_search_call",
                    "status": "in_progress",
                    "action": {"type": "search", "query": "", "queries": []},
                }
            )
            await self._stream.about(self.index, "response.web_search_call.in_progress")

    async def write(self, delta: str) -> None:
        self._written.append(delta)
        kind = self._arguments_event
        if kind is not None and self.index is not None:
            await self._stream.about(self.index, f"{kind}.delta", delta=delta)

    async def end(self, status: str = "completed") -> None:
        """The model is done with it. A function of the caller's is then done altogether."""
        binding = self.binding
        if self.refused is not None or binding is None:
            return
        if binding.approval:
            assert isinstance(binding.tool, McpTool)  # nothing else is approved
            if status == "completed":
                self.index = await self._stream.add(
                    {
                        "id": item_id("mcp_approval_request"),
                        "type": "mcp_approval_request",
                        "server_label": binding.tool.server_label,
                        "name": binding.served,
                        "arguments": self.arguments,
                    }
                )
                await self._stream.done(self.index)
            return
        assert self.index is not None  # begun
        kind = self._arguments_event
        if kind is not None:
            self.item["arguments"] = self.arguments
            fields = {"name": self.name} if isinstance(binding.tool, FunctionTool) else {}
            await self._stream.about(self.index, f"{kind}.done", arguments=self.arguments, **fields)
        if isinstance(binding.tool, FileSearchTool):
            # Where it is interrupted, it is made again by this.
            query = (self.parsed() or {}).get("query")
            self.item["queries"] = [query] if isinstance(query, str) else []
        if isinstance(binding.tool, FunctionTool):
            self.item["status"] = status
            await self._stream.done(self.index)
        elif status != "completed":
            leave(self.item)
            await self._stream.done(self.index)

    def parsed(self) -> dict[str, Any] | None:
        """The arguments, where they are the JSON object that they should be."""
        return parsed_arguments(self.arguments)

    @property
    def _arguments_event(self) -> str | None:
        match self.binding.tool if self.binding is not None else None:
            case FunctionTool():
                return "response.function_call_arguments"
            case McpTool():
                return "response.mcp_call_arguments"
        return None


def new_mcp_call(binding: Binding, approval_request_id: str | None = None) -> dict[str, Any]:
    assert isinstance(binding.tool, McpTool)  # what an mcp_call is a call of
    return {
        "id": item_id("mcp_call"),
        "type": "mcp_call",
        "status": "in_progress",
        "server_label": binding.tool.server_label,
        "name": binding.served,
        "arguments": "",
        "output": None,
        "error": None,
        "approval_request_id": approval_request_id,
    }


def parsed_arguments(arguments: str) -> dict[str, Any] | None:
    try:
        parsed = msgspec.json.decode(arguments or "{}")
    except NOT_JSON:
        return None
    return parsed if isinstance(parsed, dict) else None


def safe_arguments(arguments: str) -> str:
    """Arguments for a chat template, which fails on what isn't a JSON object."""
    return "{}" if not arguments or parsed_arguments(arguments) is None else arguments
