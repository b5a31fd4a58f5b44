"""HTTP/1.1 by hand on an asyncio protocol: it sees each byte, each FIN and each reset."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST


@dataclass(eq=False)
class Received:
    """One request as it arrived, and what became of it."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    query: str = ""
    arrived: float = field(default_factory=time.monotonic)
    gone: float | None = None  # when the client's socket closed before the answer was complete
    finished: bool = False  # a complete answer was sent
    _settled: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON, or None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    async def until_gone(self, within: float = 10.0) -> float:
        """Wait until the client has left before its answer was complete; gives ``gone``."""
        await asyncio.wait_for(self._settled.wait(), within)
        assert self.gone is not None, f"{self.path} was answered in full: the client stayed"
        return self.gone

    def leave(self) -> None:
        """The client's socket closed."""
        if not self.finished and self.gone is None:
            self.gone = time.monotonic()
        self._settled.set()

    def finish(self) -> None:
        """The answer is complete."""
        self.finished = True
        self._settled.set()


Serve = Callable[["Connection", Received], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One socket. Reads requests one after the other and has each of them served."""

    def __init__(
        self, serve: Serve, all_connections: set[Connection], failures: list[BaseException]
    ) -> None:
        self._serve = serve
        self._all = all_connections
        self._failures = failures
        self._buffer = bytearray()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._current: Received | None = None
        self._closed_by_us = False
        self._lost = False

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._all.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Keep what came until the parser wants it."""
        self._buffer += data
        self._readable.set()

    def eof_received(self) -> None:
        """A FIN ends the exchange, as it does for uvicorn."""
        self._leave()

    def connection_lost(self, _error: Exception | None) -> None:
        """The socket is gone: stop whatever is being served."""
        self._leave()
        self._all.discard(self)

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    # -- what an exchange calls --------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while the client is slow."""
        self.transport.write(data)
        await self._writable.wait()

    def close(self) -> None:
        """Send what is buffered, then FIN."""
        self._closed_by_us = True
        self.transport.close()

    def reset(self) -> None:
        """Send RST: the client reads "connection reset by peer"."""
        self._closed_by_us = True
        plain = self.transport.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._current is None

    @property
    def closed_by_us(self) -> bool:
        """Whether this side ended the connection."""
        return self._closed_by_us

    # -- one request after the other ---------------------------------------------------------

    def _leave(self) -> None:
        self._lost = True
        if self._current is not None and not self._closed_by_us:
            self._current.leave()
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self._closed_by_us:
                self._current = await self._next_request()
                await self._serve(self, self._current)
                if self._current.headers.get("connection", "").lower() == "close":
                    self.close()
                self._current = None
        except asyncio.CancelledError:
            return
        except Exception as failure:  # noqa: BLE001 - a bug in a test's behaviour must not look like a fault
            self._failures.append(failure)
            self.reset()

    async def _next_request(self) -> Received:
        head = await self._until(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = request_line.split(" ", 2)
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        if headers.get("expect", "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._chunked()
        else:
            body = await self._exactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        return Received(method, path, headers, body, query)

    async def _chunked(self) -> bytes:
        body = b""
        while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
            body += await self._exactly(size)
            await self._exactly(2)
        while await self._until(b"\r\n"):
            pass  # trailers
        return body

    async def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            await self._more()
        taken = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return taken

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        self._readable.clear()
        await self._readable.wait()
