"""The connections to one model server: kept alive, bounded and swept by one clock."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

from adapters.vllm.connection import Connection
from gateway.errors import (
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.settings import TimeoutSettings

SWEEP_SECONDS = 0.1
"""How exact the time limits are."""

IDLE_SECONDS = 4.0
"""An unused connection is closed after this. vLLM closes its side after 5 s; closing first avoids
most races between its close and our next request."""


class ConnectionPool:
    """Connections to ``host:port``.

    ``server_name`` is whose certificate is expected, where ``host`` is only its address.
    ``limit`` bounds how many are open at once; past it :meth:`acquire` raises
    ``UpstreamUnavailable`` at once, for a queue here would only hide the one in the server.
    ``changed`` is told whenever a connection opens (+1) or closes (-1).
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        timeouts: TimeoutSettings,
        limit: int,
        max_answer_bytes: int,
        heartbeat: float,
        server_name: str | None = None,
        changed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.host = host
        self._server_name = server_name or host
        self.port = port
        self.timeouts = timeouts
        self.max_answer_bytes = max_answer_bytes
        self.heartbeat = heartbeat
        self._tls = tls
        self._limit = limit
        self._changed = changed
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening = 0
        self._open = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open_connections(self) -> int:
        return self._open

    @property
    def busy_connections(self) -> int:
        return len(self._busy) + self._opening

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection that no other request uses; give it back with :meth:`release`.

        ``fresh`` opens a new one even where idle ones are left.

        Raises ``UpstreamUnreachable`` when none can be opened.
        """
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.alive:
                self._busy.add(connection)
                return connection
        if self._open + self._opening >= self._limit:
            raise UpstreamUnavailable(
                f"All {self._limit} connections to the model server are in use. Try again shortly.",
                code="too_many_connections",
            )
        return await self._connect()

    def release(self, connection: Connection) -> None:
        """Give a connection back: kept when its answer was read to the end, closed when not."""
        self._busy.discard(connection)
        if connection.reusable and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def opened(self) -> None:
        """Called by a connection whose socket stands, whether or not anybody waits for it yet."""
        self._open += 1
        self._changed(1)

    def lost(self, connection: Connection) -> None:
        """Called by a connection whose socket is gone."""
        self._open -= 1
        self._changed(-1)
        self._busy.discard(connection)

    def close(self) -> None:
        """Close every connection, those in use too."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in [*self._idle, *self._busy]:
            connection.abort()
        self._idle.clear()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            async with asyncio.timeout(self.timeouts.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    self.host,
                    self.port,
                    ssl=self._tls,
                    server_hostname=self._server_name if self._tls else None,
                )
        except TimeoutError as error:
            raise UpstreamConnectTimeout(
                f"No connection to the model server within {self.timeouts.connect:g} s."
            ) from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")
            raise UpstreamError(
                f"The TLS connection to the model server failed: {reason or 'no handshake'}.",
                code="upstream_tls_failed",
            ) from error
        except OSError as error:
            raise UpstreamUnreachable(
                f"The model server can't be reached: {_reason(error)}."
            ) from error
        finally:
            self._opening -= 1
        self._busy.add(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop)
        return connection

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check every limit, close what has been idle, and go on while anything is open."""
        now = loop.time()
        for connection in list(self._busy):
            connection.check_clock(now)
        # The list is in the order of last use, oldest first.
        while self._idle and now - self._idle[0].idle_since > IDLE_SECONDS:
            self._idle.pop(0).abort()
        self._sweeper = (
            loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._busy or self._idle else None
        )


def _reason(error: OSError) -> str:
    """Why, in the system's words: an event loop's own would tell callers the address."""
    if isinstance(error, socket.gaierror):
        return "its name is unknown"
    return os.strerror(error.errno) if error.errno else type(error).__name__
