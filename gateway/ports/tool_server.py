"""Servers of tools that speak the Model Context Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct, field

__all__ = [
    "ServedTool",
    "ToolOutput",
    "ToolServer",
    "ToolServerAddress",
    "ToolServerFailed",
    "ToolSession",
]


class ToolServerFailed(Exception):
    """The server can't be reached, refuses, breaks the protocol or takes too long.

    ``message`` is shown to callers and to the model: it holds no credential and no private
    address. ``status`` is the server's HTTP status where it answered with one, such as 401, and
    ``code`` the code of its error where it answered in its protocol.
    """

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.error_type = "tool_server_failed" if status is None else str(status)
        """The ``error.type`` of spans and metrics, so one of few."""


class ToolServerAddress(Struct, frozen=True, kw_only=True):
    """One server and how to reach it. Never stored and never logged: headers hold tokens."""

    label: str
    """What the caller calls it."""
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of every request to it, ``authorization`` included."""
    trusted: bool = False
    """Whether the configuration names it, so that it may lie in a private network."""
    ca_file: str | None = None
    """The authority of its certificate, where it has one of its own."""

    def __repr__(self) -> str:
        return f"ToolServerAddress(label={self.label!r})"


class ServedTool(Struct, frozen=True, kw_only=True):
    """A tool as its server lists it."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any] = field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None


class ToolOutput(Struct, frozen=True, kw_only=True):
    """What a call of a tool came to; ``text`` is bounded in size.

    ``is_error`` says that the tool itself failed, and ``text`` says how.
    """

    text: str
    is_error: bool = False
    content: list[dict[str, Any]] = field(default_factory=list)
    """The protocol's content blocks, as far as they fit the bound."""


class ToolSession(Protocol):
    """A conversation with one server. Both methods may run at the same time, any number of times.

    ``headers`` (the trace context) go out with that one message where the transport allows it.
    Both raise :class:`ToolServerFailed`; cancelling either is safe.
    """

    label: str
    server_address: str
    server_port: int
    protocol_version: str | None
    transport: str
    """``streamable_http`` or ``sse``."""
    server_name: str | None
    """As the server introduces itself, like the next two."""
    server_version: str | None
    instructions: str | None

    @property
    def session_id(self) -> str | None:
        """The server's id of it; servers of today's protocol have none."""

    async def list_tools(self, *, headers: Mapping[str, str] | None = None) -> list[ServedTool]:
        """All pages of them, up to a bound on their number and size."""

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> ToolOutput:
        """Run a tool. Takes at most the configured time."""


class ToolServer(Protocol):
    """The way to servers of tools."""

    def open(self, address: ToolServerAddress) -> AbstractAsyncContextManager[ToolSession]:
        """A session, by streamable HTTP or, where the server doesn't know that, SSE.

        Entering raises :class:`ToolServerFailed`, also for an address that may not be used: a
        host that isn't allowed, or one in a private network that isn't ``trusted``. The block
        may be entered in one task and left in another.
        """

    async def aclose(self) -> None:
        """Close what is open."""
