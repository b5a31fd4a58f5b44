"""One HTTP/1.1 connection to a model server.

``httpx`` with its default transport costs about a millisecond of CPU for each request; this
protocol over ``httptools`` costs a twentieth of that and hands bytes through as they come. It does
one request at a time, which is all that a pool needs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from gateway.errors import (
    UpstreamError,
    UpstreamTimeout,
    UpstreamTotalTimeout,
    UpstreamUnreachable,
)
from gateway.ports import Quiet

if TYPE_CHECKING:
    from adapters.vllm.pool import ConnectionPool

STALE_SECONDS = 0.5

RAW_BYTES = 64 * 1024
"""A body longer than this goes past the parser once its head is read."""

HIGH_WATER_BYTES = 256 * 1024
"""A stream whose reader is slow stops being read from the socket at this much."""

NEVER = float("inf")


class StaleConnection(UpstreamError):
    """A kept-alive connection was closed by the server as a request was sent on it.

    The usual race of keep-alive: the request was not worked on, so it may be sent again.
    """


class Connection(asyncio.Protocol):
    """A socket, the parser on it and the state of the request in flight.

    The pool's sweep calls :meth:`check_clock`, so that no request needs a timer of its own.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_buffered",
        "_error",
        "_keep_alive",
        "_length",
        "_loop",
        "_parser",
        "_paused",
        "_pool",
        "_raw_left",
        "_sent_at",
        "_transport",
        "_until_close",
        "_waiter",
        "answered",
        "content_type",
        "deadline",
        "done",
        "headers",
        "idle_since",
        "is_stream",
        "quiet_at",
        "requests",
        "status",
        "total_deadline",
    )

    def __init__(self, pool: ConnectionPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.requests = 0
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.content_type = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_stream = False
        self.done = False
        self.answered = False
        self.deadline = NEVER
        self.total_deadline = NEVER
        self.quiet_at = NEVER
        self._blocks: list[bytes] = []
        self._buffered = 0
        self._error: Exception | None = None
        self._keep_alive = False
        self._until_close = True
        self._length = 0
        self._raw_left = 0
        self._sent_at = 0.0
        self._begun = False

    # What the pool and the server call.

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def request(self, head: bytes, body: bytes) -> None:
        """Send one request; return at the head of a stream or the end of another answer."""
        if not self.alive:  # accepted and hung up on, as by a proxy without a server behind it
            raise UpstreamUnreachable("The model server closed the connection at once.")
        if self.requests:
            self._reset()
        self.requests += 1
        now = self._loop.time()
        timeouts = self._pool.timeouts
        self._sent_at = now
        self.deadline = now + timeouts.first_byte
        self.total_deadline = now + timeouts.total
        transport = cast("asyncio.Transport", self._transport)
        if len(body) < 16384:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        while not (self.done or self.is_stream):
            if self._error is not None:
                raise self._error
            await self._wait()

    def take_blocks(self) -> list[bytes]:
        """What has come of the body and was not taken yet."""
        blocks = self._blocks
        self._blocks = []
        self._buffered = 0
        if self._paused:
            self._paused = False
            self.deadline = self._loop.time() + self._pool.timeouts.idle
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return blocks

    async def next_block(self) -> bytes | type[Quiet] | None:
        while not self._blocks:
            if self._error is not None:
                raise self._error
            if self.done:
                return None
            await self._wait()
            if not self._blocks and not self.done and self._error is None:
                return Quiet
        blocks = self.take_blocks()
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    @property
    def reusable(self) -> bool:
        return self.done and self._keep_alive and self._error is None and self.alive

    def abort(self) -> None:
        """Close the socket at once; a server that was working sees its client leave."""
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """End the request in flight with an error and close the socket."""
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def check_clock(self, now: float) -> None:
        """Called by the pool a few times a second while a request is in flight."""
        if self.done:
            return  # a slow reader may take its time with what is there
        if now >= self.total_deadline:
            self.fail(UpstreamTotalTimeout(_took_longer("in total", self._pool.timeouts.total)))
        elif now >= self.deadline:
            if self._paused:
                return  # the caller reads slowly; the server is not to blame
            timeouts = self._pool.timeouts
            if self._begun:
                self.fail(UpstreamTimeout(_took_longer("for the next bytes", timeouts.idle)))
            else:
                self.fail(UpstreamTimeout(_took_longer("for the first byte", timeouts.first_byte)))
        elif now >= self.quiet_at:
            self.quiet_at = now + self._pool.heartbeat
            self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened()

    def data_received(self, data: bytes) -> None:
        if self._raw_left:
            self._take_raw(data)
        else:
            self._parse(data)
            if self.answered and self._length > RAW_BYTES and not self.done and self._error is None:
                self._raw_left = self._length - self._buffered

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.done:  # the answer is whole; what came after it must not become the next one
                self._keep_alive = False
                self.abort()
            else:
                self.fail(
                    UpstreamError(f"The model server sent something that is not HTTP: {error}")
                )

    def _take_raw(self, data: bytes) -> None:
        """Keep a block of a large body as it is; the parser would only copy it.

        The parser can't skip what it hasn't seen, so the next answer gets a new one.
        """
        self._raw_left -= len(data)
        if self._raw_left < 0:
            self.fail(UpstreamError("The model server sent more than its content-length."))
            return
        self.on_body(data)
        if self._raw_left == 0 and self._error is None:
            self._parser = httptools.HttpResponseParser(self)
            self.on_message_complete()

    def eof_received(self) -> bool:
        return False  # close; connection_lost says the rest

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.lost(self)
        if not self.done and self._error is None:
            if self.answered and self._until_close and exc is None:
                self.done = True  # a body without a length ends with the connection
            elif not self.answered and self.requests > 1 and self._was_just_sent():
                self._error = StaleConnection("The model server closed the connection.")
            else:
                self._error = UpstreamError(
                    "The model server closed the connection before its answer was complete.",
                    code="upstream_disconnected",
                )
        self._wake()

    def _was_just_sent(self) -> bool:
        """Whether the request is so young that its loss is keep-alive's race and not a crash."""
        return self._loop.time() - self._sent_at < STALE_SECONDS

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self.done:
            raise UpstreamError("The model server sent an answer that nobody asked for.")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        if name == b"content-type":
            self.content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-length":
            self._until_close = False
            self._length = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            self._until_close = False

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self.answered = True
        self._keep_alive = self._parser.should_keep_alive()
        now = self._loop.time()
        if self.content_type == "text/event-stream":
            # The head of a stream is no sign of life: vLLM sends it before it has a token, so
            # the first-byte limit goes on until the first event.
            self.is_stream = True
            self.quiet_at = now + self._pool.heartbeat
            self._wake()
        else:
            self._begun = True
            self.deadline = now + self._pool.timeouts.idle

    def on_body(self, body: bytes) -> None:
        self._blocks.append(body)
        self._buffered += len(body)
        now = self._loop.time()
        self.deadline = now + self._pool.timeouts.idle
        if self.is_stream:
            self._begun = True
            self.quiet_at = now + self._pool.heartbeat
            if self._buffered > HIGH_WATER_BYTES and not self._paused:
                self._paused = True
                if self._transport is not None:
                    self._transport.pause_reading()
            self._wake()
        elif self._buffered > self._pool.max_answer_bytes:
            self.fail(
                UpstreamError(
                    f"The model server's answer is larger than {self._pool.max_answer_bytes} bytes."
                )
            )

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 Continue and its like come before the answer
            self.headers = []
            self.content_type = ""
            self._until_close = True
            return
        self.done = True
        self.deadline = self.total_deadline = self.quiet_at = NEVER
        self._wake()


def _took_longer(what: str, seconds: float) -> str:
    return f"The model server took longer than {seconds:g} s {what}."
