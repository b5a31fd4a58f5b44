"""uvicorn's HTTP protocol, writing an answer's head and body in one go.

uvicorn hands head and body to the socket one after the other, which is two system calls where one
would do; for a short answer that is a tenth of all the work.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import InvalidRequest

_HEAD = b"HTTP/1.1 "
_COPIED_BYTES = 16 * 1024
"""Up to this, copying a body behind its head is cheaper than two buffers."""


class JoiningTransport:
    """A transport that keeps an answer's head back until its body begins, or the turn ends.

    Everything else goes to the transport underneath at once, flow control too: that speaks to the
    protocol itself as soon as its buffer is full.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        head = self._head
        if head:
            self._head = b""
            if len(data) < _COPIED_BYTES:
                self._transport.write(head + data)
            else:
                self._transport.writelines((head, data))
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoiningProtocol(HttpToolsProtocol):
    """What ``uvicorn.run(http=…)`` is given."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's own is
        joined = cast("asyncio.Transport", JoiningTransport(transport, self.loop))
        super().connection_made(joined)

    def send_400_response(self, msg: str) -> None:
        """What isn't HTTP gets the one shape of errors too."""
        body = InvalidRequest(msg, code="invalid_http").body()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
