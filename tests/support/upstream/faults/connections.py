"""Connections that break: raw bytes, RST and FIN at every point of an answer."""

from __future__ import annotations

import asyncio
from typing import Literal

from tests.support.upstream.answers import Events, Whole
from tests.support.upstream.exchange import Behaviour, Exchange

End = Literal["close", "reset", "hang", "keep"]


def _end(exchange: Exchange, how: End) -> None:
    if how == "close":
        exchange.close()
    elif how == "reset":
        exchange.reset()


def sends(data: bytes, then: End = "close") -> Behaviour:
    """Send raw bytes in place of an answer, then end as told (`keep`: ready for the next)."""

    async def behaviour(exchange: Exchange) -> None:
        if data:
            await exchange.raw(data)
            await asyncio.sleep(0.01)
        if then == "hang":
            await exchange.hang()
        _end(exchange, then)

    return behaviour


def resets_before_head() -> Behaviour:
    """RST in place of an answer."""
    return sends(b"", then="reset")


def closes_before_head() -> Behaviour:
    """FIN in place of an answer."""
    return sends(b"", then="close")


def resets_after(events: int = 1) -> Behaviour:
    """RST mid-stream; in the middle of the body when the answer is no stream."""
    return _breaks_after(events, "reset")


def closes_after(events: int = 1) -> Behaviour:
    """EOF mid-stream, before the last chunk; short of the content-length when it is no stream."""
    return _breaks_after(events, "close")


def resets_mid_body() -> Behaviour:
    """RST in the middle of the answer."""
    return resets_after(events=1)


def closes_mid_body() -> Behaviour:
    """EOF before the content-length is reached."""
    return closes_after(events=1)


def _breaks_after(events: int, how: End) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await send_part(exchange, events)
        _end(exchange, how)

    return behaviour


def closes_connection() -> Behaviour:
    """An honest answer that says `connection: close`, and does."""

    async def behaviour(exchange: Exchange) -> None:
        answer = exchange.answer
        head = exchange.head_of(answer) if isinstance(answer, Whole) else exchange.stream_head()
        await exchange.raw(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        if isinstance(answer, Whole):
            await exchange.raw(answer.body)
            exchange.request.finish()
        else:
            await exchange.events(answer.events)
            await exchange.end_stream()
        exchange.close()

    return behaviour


def closes_when_idle(after: float = 0.0) -> Behaviour:
    """An honest keep-alive answer; the connection is closed that many seconds after it."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.honestly()
        asyncio.get_running_loop().call_later(after, exchange.close)

    return behaviour


async def send_part(exchange: Exchange, events: int) -> None:
    """Send the head and `events` events, or the head and half of a whole body."""
    answer = exchange.answer
    if isinstance(answer, Events):
        await exchange.start_stream()
        await exchange.events(answer.events[:events])
    else:
        await exchange.raw(exchange.head_of(answer) + answer.body[: len(answer.body) // 2])
    await asyncio.sleep(0.01)  # so that what was sent arrives before the end of it does
