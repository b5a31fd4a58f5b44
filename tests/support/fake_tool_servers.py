"""Servers of tools in place of those that speak MCP, for responses that call them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from gateway.app import Application
from gateway.ports import ServedTool, ToolOutput, ToolServerAddress, ToolSession


class FakeToolServers:
    """Every server has the tool `look`. `tokens` are the credentials that calls came with.

    With `hang` a call never ends; `called` is set when one comes.
    """

    def __init__(self, *, hang: bool = False) -> None:
        self.hang = hang
        self.calls = 0
        self.tokens: list[str | None] = []
        self.called = asyncio.Event()

    def address(self, *, authorization: str | None, **_: Any) -> ToolServerAddress:
        return cast("ToolServerAddress", authorization)

    @asynccontextmanager
    async def open(self, address: ToolServerAddress) -> AsyncIterator[ToolSession]:
        yield cast("ToolSession", address)

    async def list_tools(self, _: Any, session: ToolSession) -> list[ServedTool]:
        return [ServedTool(name="look", description="Look.", input_schema={"type": "object"})]

    async def call_tool(
        self, _: Any, session: ToolSession, name: str, arguments: Mapping[str, Any]
    ) -> ToolOutput:
        self.calls += 1
        self.tokens.append(cast("str | None", session))
        self.called.set()
        if self.hang:
            await asyncio.Event().wait()
        return ToolOutput(text="A lighthouse.", content=[], is_error=False)


def give_tools(application: Application, servers: FakeToolServers) -> None:
    """Have responses find these servers."""
    agentic = cast("Any", application.agentic)
    agentic._preparation._servers = servers
    agentic._performer._servers = servers
