"""Honest answers in unusual bytes and unusual sizes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Literal

from tests.support.upstream.answers import Events, Whole
from tests.support.upstream.exchange import Behaviour, Exchange, framed


def crlf_events() -> Behaviour:
    """Event lines that end in CRLF, as the SSE standard allows."""

    async def behaviour(exchange: Exchange) -> None:
        assert isinstance(exchange.answer, Events), "crlf_events() needs stream: true"
        await exchange.send(Events([e.replace(b"\n", b"\r\n") for e in exchange.answer.events]))

    return behaviour


def in_small_writes(split: Literal["chunks", "bytes"] = "chunks", seed: int = 0) -> Behaviour:
    """An honest stream in writes of 1 to 7 bytes: events cut anywhere.

    `chunks` makes each piece an HTTP chunk, which no buffer can glue together again unseen;
    `bytes` keeps one chunk per event and cuts the raw bytes, heads and chunk sizes too.
    """

    async def behaviour(exchange: Exchange) -> None:
        answer, sizes = exchange.answer, random.Random(seed)
        if isinstance(answer, Whole):
            parts = list(_cut(exchange.head_of(answer) + answer.body, sizes))
        elif split == "bytes":
            whole = b"".join([exchange.stream_head(), *map(framed, answer.events), b"0\r\n\r\n"])
            parts = list(_cut(whole, sizes))
        else:
            pieces = map(framed, _cut(b"".join(answer.events), sizes))
            parts = [exchange.stream_head(), *pieces, b"0\r\n\r\n"]
        for part in parts:
            await exchange.raw(part)
            await asyncio.sleep(0)
        exchange.request.finish()

    return behaviour


def in_one_write() -> Behaviour:
    """An honest stream whose head and events arrive at once, all events in one HTTP chunk."""

    async def behaviour(exchange: Exchange) -> None:
        assert isinstance(exchange.answer, Events), "in_one_write() needs stream: true"
        events = framed(b"".join(exchange.answer.events))
        await exchange.raw(exchange.stream_head() + events + b"0\r\n\r\n")
        exchange.request.finish()

    return behaviour


def _cut(data: bytes, sizes: random.Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = sizes.randint(1, 7)
        yield data[start : start + size]
        start += size


def gigantic(size: int = 64 * 1024 * 1024) -> Behaviour:
    """An honest answer of about `size` bytes, of which the reply is nearly all.

    In a stream, the second event is sent again until the size is reached.
    """

    async def behaviour(exchange: Exchange) -> None:
        answer = exchange.answer
        if isinstance(answer, Events):
            await exchange.start_stream()
            await exchange.chunk(answer.events[0])
            await exchange.events(_repeated(answer.events[1], size))
            await exchange.events(answer.events[2:])
            await exchange.end_stream()
            return
        before, mark, rest = answer.body.partition(b'"content":"')
        assert mark, "gigantic() fills the content of a chat answer"
        padding = max(0, size - len(answer.body))
        await exchange.raw(exchange.head_of(answer, len(answer.body) + padding) + before + mark)
        for start in range(0, padding, 1 << 16):
            await exchange.raw(b"x" * min(1 << 16, padding - start))
        await exchange.raw(rest)
        exchange.request.finish()

    return behaviour


def _repeated(event: bytes, size: int) -> Iterator[bytes]:
    return (event for _ in range(size // len(event)))
