"""Upstreams that say nothing, or say it slowly."""

from __future__ import annotations

import asyncio

from tests.support.upstream.answers import Events, Whole
from tests.support.upstream.exchange import Behaviour, Exchange
from tests.support.upstream.faults.connections import send_part, sends


def hangs_before_head() -> Behaviour:
    """Accept the request and never answer."""
    return sends(b"", then="hang")


def hangs_after_head() -> Behaviour:
    """Send the head alone, and nothing after it."""
    return hangs_after(events=0)


def hangs_after(events: int) -> Behaviour:
    """Send this many events, then fall silent with the connection open."""

    async def behaviour(exchange: Exchange) -> None:
        if events == 0 and isinstance(exchange.answer, Whole):
            await exchange.raw(exchange.head_of(exchange.answer))
        else:
            await send_part(exchange, events)
        await exchange.hang()

    return behaviour


def slow(before_head: float = 0.0, between_events: float = 0.0) -> Behaviour:
    """Answer honestly, with seconds of waiting before the head and after each event."""

    async def behaviour(exchange: Exchange) -> None:
        await asyncio.sleep(before_head)
        if isinstance(exchange.answer, Whole):
            await exchange.honestly()
        else:
            await exchange.start_stream()
            await exchange.events(exchange.answer.events, between_events)
            await exchange.end_stream()

    return behaviour


def after(seconds: float, behaviour: Behaviour) -> Behaviour:
    """Wait, then behave like that."""

    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await behaviour(exchange)

    return late


def endless(between_events: float = 0.01) -> Behaviour:
    """A stream that repeats its second event until the client leaves."""

    async def behaviour(exchange: Exchange) -> None:
        assert isinstance(exchange.answer, Events), "endless() needs a request with stream: true"
        first, again, *_ = exchange.answer.events
        await exchange.start_stream()
        await exchange.chunk(first)
        while True:
            await exchange.chunk(again)
            await asyncio.sleep(between_events)

    return behaviour
