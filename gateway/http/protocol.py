"""uvicorn's HTTP protocol with bounds, writing an answer's head and body in one go.

uvicorn hands head and body to the socket one after the other, which is two system calls where one
would do; for a short answer that is a tenth of all the work.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import GatewayError, HeadTooLarge, InvalidRequest, RequestStalled

MAX_HEAD_BYTES = 64 * 1024
"""The request line and all headers. A path with an id of some length is a few hundred."""
HEAD_SECONDS = 30.0
"""In which a head must have come whole: from its first byte, or from the connection's begin."""
SILENT_SECONDS = 90.0
"""That a caller may send nothing of a body while it is read. Forms are told earlier, after 60."""
WATCH_SECONDS = 5.0

_VERSIONS = ("1.1", "1.0")
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
    """What ``uvicorn.run(http=…)`` is given.

    It bounds what uvicorn doesn't: the size of a request's head, the time in which it must have
    come, and the silence inside of a body. Fields behind a chunked body are no headers, and a
    caller that offers HTTP/2 with a request is answered in HTTP/1.1, body and all.
    """

    head_seconds = HEAD_SECONDS
    silent_seconds = SILENT_SECONDS
    _watch: asyncio.TimerHandle | None = None
    _head_bytes = 0
    """Of the head that is coming, or of what is no content between and behind blocks of a body;
    whole blocks, so that up to one is counted too much."""
    _in_head = True
    _resuming = False
    _refusal: GatewayError | None = None
    _since = 0.0
    """When the head began to come, or when the last block of a body came."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's own is
        joined = cast("asyncio.Transport", JoiningTransport(transport, self.loop))
        super().connection_made(joined)
        self._since = self.loop.time()
        self._watch = self.loop.call_later(self.head_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self._in_head:
            self._since = self.loop.time()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        else:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())

    # -- what the parser says -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._resuming:
            self._in_head = True
            self._since = self.loop.time()
            super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._check_size()
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("neither HTTP/1.1 nor HTTP/1.0")
        super().on_headers_complete()
        self.headers = []  # what comes behind a body is put there, and not among the headers
        self._in_head = False
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def _check_size(self) -> None:
        """The head by itself, where what came with it is more than a head may be."""
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) + fields > MAX_HEAD_BYTES:
            self._refusal = _head_too_large()
            raise ValueError("too large a head")

    def _stay(self, rest: bytes) -> None:
        """Read the body of a request that offered another protocol, and what follows.

        The parser takes the offer for granted and leaves the rest to others. A new one is told of
        a request with the same framing, and goes on from there.
        """
        cycle = self.cycle
        framing = b"".join(
            name + b": " + value + b"\r\n"
            for name, value in cycle.scope["headers"]
            if name in (b"content-length", b"transfer-encoding")
        )
        if framing:
            cycle.more_body = True
        parser = httptools.HttpRequestParser(self)
        self.parser, self._resuming = parser, True
        try:
            parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        finally:
            self._resuming = False
        if rest:
            self.data_received(rest)

    # -- who is too slow, or sends too much ------------------------------------------------------

    def _look(self) -> None:
        """Close the connection of a caller who is silent where it is its turn."""
        if self.transport.is_closing():
            return
        now, cycle = self.loop.time(), self.cycle
        self._watch = self.loop.call_later(WATCH_SECONDS, self._look)
        if self._in_head:
            begun = cycle is None or self._head_bytes > 0
            if begun and now - self._since >= self.head_seconds:
                self._refuse(RequestStalled("The request's head did not come in time."))
        elif (
            cycle.more_body
            and not cycle.response_complete
            and not self.flow.read_paused
            and now - self._since >= self.silent_seconds
        ):
            self._refuse(
                RequestStalled(f"The request sent nothing for {self.silent_seconds:g} seconds.")
            )

    def _refuse(self, error: GatewayError) -> None:
        """Answer with this where nothing is answered yet, and close the connection."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self._in_head or cycle is None or not cycle.response_started:
            self.transport.write(_answer(error))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What isn't HTTP gets the one shape of errors too."""
        self._refuse(self._refusal or InvalidRequest(msg, code="invalid_http"))


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")


def _answer(error: GatewayError) -> bytes:
    """The whole answer; no application has seen the request."""
    body = error.body()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
