"""Tools of MCP servers: which there are, and calling them for the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from gateway.errors import ToolServerError
from gateway.items.parsing import item_id
from gateway.observability.activity import Activity
from gateway.ports import (
    ServedTool,
    ToolServerFailed,
    ToolSession,
)
from gateway.responses.calls import parsed_arguments
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import McpTool
from gateway.responses.toolbox import is_allowed
from gateway.tools.service import ToolService

__all__ = ["McpServers"]


class McpServers:
    """The servers of one response, each opened once, when it is first needed.

    Used as a context manager; leaving it closes all sessions.
    """

    def __init__(self, servers: ToolService, tools: Sequence[McpTool]) -> None:
        self._servers = servers
        self._tools = {tool.server_label: tool for tool in tools}
        self._sessions: dict[str, ToolSession] = {}
        self._locks = {label: asyncio.Lock() for label in self._tools}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def tools(
        self, activity: Activity, stream: ResponseStream, known: Mapping[str, Sequence[ServedTool]]
    ) -> dict[str, list[ServedTool]]:
        """The allowed tools of each server, by its label.

        Those in ``known`` were listed earlier in the same context and aren't asked for again; the
        others make an ``mcp_list_tools`` item each. Raises ``ToolServerError``.
        """
        found: dict[str, list[ServedTool]] = {}
        for label, tool in self._tools.items():
            if label in known:
                found[label] = [one for one in known[label] if is_allowed(tool, one)]
            else:
                found[label] = await self._list(activity, stream, tool)
        return found

    async def call(
        self, activity: Activity, stream: ResponseStream, index: int, tool: McpTool
    ) -> str:
        """Run the ``mcp_call`` item at this place; what the model is told of it.

        A call that fails is an item that failed, which the model is told too.
        """
        item = stream.run.output[index]
        arguments = parsed_arguments(item["arguments"])
        told: str
        if arguments is None:
            message = "The arguments are not a JSON object."
            item["error"] = {"type": "mcp_protocol_error", "code": -32602, "message": message}
            told = message
        else:
            try:
                session = await self._session(tool)
                output = await self._servers.call_tool(activity, session, item["name"], arguments)
            except ToolServerFailed as error:
                item["error"] = _call_error(error)
                told = error.message
            else:
                told = output.text
                if output.is_error:
                    item["error"] = {
                        "type": "mcp_tool_execution_error",
                        "content": output.content or [{"type": "text", "text": output.text}],
                    }
                else:
                    item["output"] = output.text
        failed = item["error"] is not None
        item["status"] = "failed" if failed else "completed"
        await stream.about(index, f"response.mcp_call.{item['status']}")
        await stream.done(index)
        return f"Error: {told}" if failed else told

    async def _list(
        self, activity: Activity, stream: ResponseStream, tool: McpTool
    ) -> list[ServedTool]:
        item: dict[str, Any] = {
            "id": item_id("mcp_list_tools"),
            "type": "mcp_list_tools",
            "server_label": tool.server_label,
            "tools": [],
            "error": None,
        }
        index = await stream.add(item)
        await stream.about(index, "response.mcp_list_tools.in_progress")
        try:
            session = await self._session(tool)
            served = await self._servers.list_tools(activity, session)
        except ToolServerFailed as error:
            item["error"] = error.message
            await stream.about(index, "response.mcp_list_tools.failed")
            await stream.done(index)
            raise ToolServerError(
                f"Error retrieving tool list from MCP server: '{tool.server_label}'. "
                f"{error.message}",
                param="tools",
            ) from None
        allowed = [one for one in served if is_allowed(tool, one)]
        item["tools"] = [_listed(one) for one in allowed]
        await stream.about(index, "response.mcp_list_tools.completed")
        await stream.done(index)
        return allowed

    async def _session(self, tool: McpTool) -> ToolSession:
        label = tool.server_label
        async with self._locks[label]:
            if label not in self._sessions:
                address = self._servers.address(
                    server_label=label,
                    server_url=tool.server_url,
                    connector_id=tool.connector_id,
                    authorization=tool.authorization,
                    headers=tool.headers,
                    param="tools",
                )
                session = self._servers.open(address)
                self._sessions[label] = await self._stack.enter_async_context(session)
            return self._sessions[label]


def _listed(tool: ServedTool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "annotations": tool.annotations,
    }


def _call_error(error: ToolServerFailed) -> dict[str, Any]:
    if error.status is not None:
        return {"type": "http_error", "code": error.status, "message": error.message}
    return {"type": "mcp_protocol_error", "code": -32000, "message": error.message}
