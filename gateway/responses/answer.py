"""A response's events on their way to the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.disconnect import Departure
from gateway.http.event_stream import PING
from gateway.http.refusal import refuse
from gateway.responses.stream import TERMINAL, Sink

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope, Send

__all__ = ["StreamedResponse"]

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_PREAMBLE = frozenset({"response.created", "response.queued", "response.in_progress"})

Work = Callable[[Sink], Awaitable[GatewayError | None]]
"""Sends events until they end; the error that they ended with."""


class StreamedResponse:
    """An ASGI application that streams the events of ``work``.

    The first events, which say nothing but that there is a response, are held back until
    something has come of it: a model server that is overloaded is then a real 503, on which
    clients try again. With ``hold=False`` they go out at once, and after ``heartbeat`` seconds
    of silence they do as well.
    """

    def __init__(self, work: Work, *, heartbeat: float, hold: bool = True) -> None:
        self._work = work
        self._heartbeat = heartbeat
        self._hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["state"]["exchange"]
        outlet = _Outlet(send, hold=self._hold)
        try:
            with Departure(receive):
                async with self._beating(outlet):
                    error = await self._work(outlet)
                await outlet.end()
        except ClientDisconnected as left:
            exchange.fail(left)
        except GatewayError as refused:
            exchange.fail(refused)
            if outlet.begun:
                await outlet.fail(refused)
            else:
                await refuse(refused, send)
        except asyncio.CancelledError:
            if outlet.over:  # and else it is cut off, so that nobody takes it for whole
                await outlet.end()
            raise
        else:
            if error is not None:
                exchange.fail(error)

    @asynccontextmanager
    async def _beating(self, outlet: _Outlet) -> AsyncIterator[None]:
        beats = asyncio.create_task(self._beat(outlet), name="heartbeat")
        try:
            yield
        finally:
            beats.cancel()
            with suppress(asyncio.CancelledError):
                await beats

    async def _beat(self, outlet: _Outlet) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            if time.monotonic() - outlet.last_sent >= self._heartbeat * 0.9:
                await outlet.ping()


class _Outlet:
    """Where the events go; a :class:`Sink`."""

    def __init__(self, send: Send, *, hold: bool) -> None:
        self._send = send
        self._hold = hold
        self._held: list[bytes] = []
        self._turn = asyncio.Lock()
        self.begun = False
        self.over = False
        """Whether its last event was sent."""
        self.last_number = -1
        self.last_sent = time.monotonic()

    async def __call__(self, event: dict[str, Any]) -> None:
        data = encode(event)
        async with self._turn:
            if self.begun:
                await self._write(data)
            else:
                self._held.append(data)
                if not self._hold or event["type"] not in _PREAMBLE:
                    await self._begin()
        self.last_number = event["sequence_number"]
        self.over = event["type"] in TERMINAL

    async def ping(self) -> None:
        """Say that it goes on; what is held goes out first."""
        async with self._turn:
            if not self.begun:
                await self._begin()
            await self._write(PING)

    async def fail(self, error: GatewayError) -> None:
        """End with an error that is none of the response's. It has no number of its own, so that
        who comes back after it misses nothing.
        """
        event = {
            "type": "error",
            "sequence_number": max(self.last_number, 0),
            "code": error.code,
            "message": error.message,
            "param": error.param,
        }
        await self._write(encode(event))
        await self.end()

    async def end(self) -> None:
        if not self.begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS.copy()})
        held, self._held = b"".join(self._held), []
        if held:
            await self._write(held)

    async def _write(self, data: bytes) -> None:
        self.last_sent = time.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


def encode(event: dict[str, Any]) -> bytes:
    """One event as it is sent: named, as OpenAI names them."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
