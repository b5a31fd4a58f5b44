"""uvicorn's HTTP protocol, writing an answer's head and body in one go.

uvicorn hands head and body to the socket one after the other, which is two system calls where one
would do; for a short answer that is a tenth of all the work.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningTransport:
    """A transport that writes what one turn of the event loop produced at the turn's end.

    Everything else goes to the transport underneath, flow control too: it speaks to the protocol
    itself as soon as its buffer is full.
    """

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pending = self._pending
        if pending:
            self._pending = []
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoiningProtocol(HttpToolsProtocol):
    """What ``uvicorn.run(http=…)`` is given."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        joined = cast("asyncio.Transport", JoiningTransport(transport, self.loop))
        super().connection_made(joined)
