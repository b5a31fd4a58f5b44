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
from gateway.responses.stream import Sink

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
            await refuse(refused, send)
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
        self.begun = False
        self.last_sent = time.monotonic()

    async def __call__(self, event: dict[str, Any]) -> None:
        data = encode(event)
        if not self.begun:
            self._held.append(data)
            if not self._hold or event["type"] not in _PREAMBLE:
                await self._begin()
            return
        await self._write(data)

    async def ping(self) -> None:
        """Say that it goes on; what is held goes out first."""
        if not self.begun:
            await self._begin()
        await self._write(PING)

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
