"""The way to MCP servers. What the protocol's SDK needs is loaded when it is first used."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from adapters.web.guard import GuardedTransport, anywhere
from adapters.web.tls import context_for
from gateway.errors import InvalidRequest
from gateway.ports import ToolServerAddress, ToolServerFailed, ToolSession
from gateway.settings import ToolSettings
from gateway.urls import UrlPolicy

if TYPE_CHECKING:
    from adapters.mcp.session import McpSession

__all__ = ["McpServer"]

MOST_SESSIONS = 512
"""Open at once in one process."""
_EVENT_STREAM_FACTOR = 16
"""How much larger the stream of the older transport may be, which carries all of its answers."""


class McpServer:
    """Fulfils ``ToolServer``."""

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._policy = UrlPolicy(settings.allowed_hosts, "tools.allowed_hosts")
        self._open: set[McpSession] = set()

    @asynccontextmanager
    async def open(self, address: ToolServerAddress) -> AsyncIterator[ToolSession]:
        session = await self._session(address)
        self._open.add(session)
        try:
            await session.start()
            yield session
        finally:
            self._open.discard(session)
            await session.close()

    async def aclose(self) -> None:
        sessions, self._open = self._open, set()
        await asyncio.gather(*(session.close() for session in sessions))

    async def _session(self, address: ToolServerAddress) -> McpSession:
        label, settings = address.label, self._settings
        if len(self._open) >= MOST_SESSIONS:
            raise ToolServerFailed("The gateway has too many sessions with tool servers open.")
        if not address.trusted:
            try:
                self._policy.check(address.url, "server_url")
            except InvalidRequest as error:
                raise ToolServerFailed(error.message) from None
        _check_headers(label, address.headers)
        try:
            context = context_for(address.ca_file or settings.ca_file)
        except (OSError, ssl.SSLError):
            raise ToolServerFailed(
                f"The tool server '{label}' failed: its CA file in the configuration can't be used."
            ) from None
        module = await asyncio.to_thread(importlib.import_module, "adapters.mcp.session")
        found: McpSession = module.McpSession(
            address,
            settings,
            GuardedTransport(
                anywhere if address.trusted else self._policy.admits,
                context,
                max_bytes=settings.max_message_bytes,
                max_event_stream_bytes=settings.max_message_bytes * _EVENT_STREAM_FACTOR,
            ),
        )
        return found


def _check_headers(label: str, headers: Mapping[str, str]) -> None:
    """A wrong header is its sender's mistake; the value, which may be a token, isn't repeated."""
    for name, value in headers.items():
        fine = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not fine or any(one in value for one in "\r\n\x00") or not value.isascii():
            raise ToolServerFailed(
                f"The tool server '{label}' failed: a header for it can't be sent as it is."
            )
