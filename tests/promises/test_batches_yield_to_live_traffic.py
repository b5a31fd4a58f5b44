"""A batch takes what callers leave: theirs is the first turn, and a batch still ends."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.support.batches import CHAT, chat_line, finished, made
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import Exchange, FakeVllm

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PLACES = 4
SERVICE_SECONDS = 0.06
LIVE = "live"
MANY = 32


class Bounded:
    """A server that does so many requests at once; the others stand in line."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(PLACES)
        self.batch_requests = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.batch_requests += exchange.request.json["messages"][0]["content"] != LIVE
        async with self.places:
            await asyncio.sleep(SERVICE_SECONDS)
            await exchange.honestly()


@pytest.fixture
def server(upstream: FakeVllm) -> Bounded:
    bounded = Bounded()
    upstream.behave(CHAT, bounded)
    return bounded


@asynccontextmanager
async def gateway_with(
    upstream: FakeVllm, folder: Path, **batches: float
) -> AsyncIterator[AsyncOpenAI]:
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            data_dir=str(folder),
            batches=batches,
            traced=False,
        ) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client


async def ask(client: AsyncOpenAI) -> None:
    messages = [{"role": "user", "content": LIVE}]
    await client.chat.completions.create(model="fake-chat", messages=messages)


async def times(act: Callable[[], Awaitable[None]], count: int = 30) -> list[float]:
    """How long it takes, so many times, with a little pause after each."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    return sorted(taken)


async def test_a_caller_hardly_notices_a_batch(upstream: FakeVllm, server: Bounded, tmp_path: Path):
    """With a batch that could send eight times what the server can do at once, a caller waits
    little longer than alone; with as many callers it would wait several times as long."""
    async with gateway_with(upstream, tmp_path, concurrency=MANY, yield_above=0) as client:
        alone = statistics.median(await times(lambda: ask(client)))
        crowd = [asyncio.create_task(times(lambda: ask(client), 8)) for _ in range(MANY)]
        await asyncio.sleep(0.2)
        crowded = statistics.median(await times(lambda: ask(client), 5))
        await asyncio.gather(*crowd)

        batch = await made(client, (chat_line(str(number)) for number in range(3000)))
        while batch.request_counts.completed < 150:  # it is as quick as it gets
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
        before, began = server.batch_requests, time.monotonic()
        beside = await times(lambda: ask(client))
        rate = (server.batch_requests - before) / (time.monotonic() - began)
        await client.batches.cancel(batch.id)
        await finished(client, batch)
    typical, slow = statistics.median(beside), beside[int(0.9 * len(beside))]
    shown = f"alone {alone:.3f}, beside {typical:.3f} and {slow:.3f}, crowded {crowded:.3f}"
    print(shown, f"rate {rate:.1f}")
    assert crowded > 3 * alone, shown
    assert typical < 3 * alone, shown
    assert slow < 5 * alone, shown
    assert rate > 2, "the batch stood still"


async def test_a_batch_alone_uses_the_server(upstream: FakeVllm, server: Bounded, tmp_path: Path):
    """Nobody else is there: it finds out by itself how much the server can do, and does it."""
    async with gateway_with(upstream, tmp_path, concurrency=MANY) as client:
        batch = await made(client, (chat_line(str(number)) for number in range(400)))
        while batch.status != "in_progress":
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        began = time.monotonic()
        await finished(client, batch, within=40)
        most = PLACES / SERVICE_SECONDS
        assert 400 / (time.monotonic() - began) > most / 4


async def test_a_batch_never_starves(upstream: FakeVllm, server: Bounded, tmp_path: Path):
    """Callers who never pause leave it one request for each `batches.patience_seconds`."""
    patience = 0.4
    async with gateway_with(
        upstream, tmp_path, yield_above=1, patience_seconds=patience, concurrency=8
    ) as client:
        leaving = asyncio.Event()

        async def never_pauses() -> None:
            while not leaving.is_set():
                await ask(client)

        callers = [asyncio.create_task(never_pauses()) for _ in range(6)]
        await asyncio.sleep(0.2)
        batch = await made(client, map(chat_line, "abcdef"))
        began = time.monotonic()
        await asyncio.sleep(2.5)
        asked = server.batch_requests
        assert 2 <= asked <= (time.monotonic() - began) / patience + 1
        leaving.set()
        await asyncio.gather(*callers)
        batch = await finished(client, batch)
        assert batch.request_counts.completed == 6
