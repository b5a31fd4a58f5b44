"""A limit is one limit for all replicas, and a replica that dies takes nothing with it for long."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.limits.ledger import SLOT_SECONDS
from tests.support.gateway import GatewayProcess
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

REPLICAS = 3


@pytest.fixture(params=["postgresql", "redis"])
def shared(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The settings of what the replicas share, whichever store counts."""
    settings: dict[str, Any] = {
        "database": {"url": request.getfixturevalue("postgres_url")},
        "limits": {"store": "database"},
    }
    if request.param == "redis":
        settings["limits"] = {"store": request.getfixturevalue("redis_url")}
    yield settings


RULES = [
    {"model": "few", "requests_per_minute": 30},
    {"model": "many", "requests_per_minute": 300},
    {"model": "at-once", "concurrent_requests": 4},
    {"model": "budget", "tokens_per_month": 1_000_000},
]
MODELS = [str(rule["model"]) for rule in RULES]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeVllm]:
    """One model for each limit, so that each is met by itself."""
    async with FakeVllm(MODELS) as server:
        yield server


@asynccontextmanager
async def replicas(
    upstream: FakeVllm, shared: dict[str, Any]
) -> AsyncIterator[list[GatewayProcess]]:
    config = {
        **shared,
        "discover": [upstream.url],
        "limits": {**shared["limits"], "rules": RULES},
        "ingestion": {"embedded_worker": False},
    }
    async with AsyncExitStack() as stack:
        processes = [GatewayProcess(config, models=MODELS) for _ in range(REPLICAS)]
        for one in processes:  # beside each other they'd take longer than a start may
            stack.callback(one.close)
            await asyncio.to_thread(one.start)
        yield processes


async def sprayed(
    client: httpx.AsyncClient, processes: list[GatewayProcess], model: str, times: int
) -> tuple[int, float]:
    """How many of so many requests at once, each to the next replica, passed; and the seconds that
    all took. Whatever doesn't pass is a 429.

    Those that passed uncounted, since the store took longer than a second, are left out.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    loop = asyncio.get_running_loop()
    before = await asyncio.to_thread(uncounted, processes)
    began = loop.time()
    asked = [
        client.post(f"{processes[number % len(processes)].base_url}/chat/completions", json=body)
        for number in range(times)
    ]
    statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    seconds = loop.time() - began
    assert set(statuses) <= {200, 429}
    spared = await asyncio.to_thread(uncounted, processes) - before
    return statuses.count(200) - spared, seconds


def uncounted(processes: list[GatewayProcess]) -> int:
    """How many requests these have let pass without counting them, by their own metrics."""
    told = re.compile(r"^understudy_limits_uncounted_total (\S+)$", re.MULTILINE)
    texts = [one.get("/metrics")[1].decode() for one in processes]
    return sum(int(float(told.findall(text)[0])) for text in texts)


@pytest.mark.alone
async def test_what_replicas_let_pass_is_counted_together(
    upstream: FakeVllm, shared: dict[str, Any]
):
    """Three replicas let pass what one would, by the minute and at once."""
    async with (
        replicas(upstream, shared) as processes,
        httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=30)) as client,
    ):
        passed, took = await sprayed(client, processes, "few", 90)
        assert 30 <= passed <= 31 + took * 30 / 60

        # Where units are taken ahead the limit holds as well, and is nearly reached: what may lie
        # unused at the replicas is a fiftieth of the limit at each.
        passed, took = await sprayed(client, processes, "many", 400)
        assert 300 - REPLICAS * 300 / 50 <= passed <= 301 + took * 300 / 60

        for _ in range(2):  # what has ended makes room again
            upstream.behave(CHAT, faults.after(3.0, Exchange.honestly), times=4)
            passed, _ = await sprayed(client, processes, "at-once", 12)
            assert passed == 4
            await asyncio.sleep(0.5)


@pytest.mark.alone
async def test_replicas_that_end_leave_their_share_to_the_others(
    upstream: FakeVllm, shared: dict[str, Any]
):
    """One that is killed keeps its places for as long as its lease; one that ends in order gives
    everything back at once.
    """
    upstream.behave(CHAT, faults.hangs_before_head(), times=4)
    async with (
        replicas(upstream, shared) as processes,
        httpx.AsyncClient(timeout=60) as client,
    ):
        doomed, ending, survivor = processes
        held = [asyncio.create_task(sprayed(client, [doomed], "at-once", 1)) for _ in range(4)]
        async with asyncio.timeout(20):
            while sum(one.method == "POST" for one in upstream.requests_to(CHAT)) < 4:
                await asyncio.sleep(0.02)
        assert (await sprayed(client, [survivor], "at-once", 1))[0] == 0
        await asyncio.to_thread(doomed.kill)
        await asyncio.gather(*held, return_exceptions=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SLOT_SECONDS + 30
        while (await sprayed(client, [survivor], "at-once", 1))[0] == 0:
            assert loop.time() < deadline, "the dead keep their places"
            await asyncio.sleep(0.5)

        upstream.reset()
        assert (await sprayed(client, [ending, survivor], "budget", 4))[0] == 4
        await asyncio.to_thread(ending.terminate)
        # The answers' tokens, and what the replica that is still there has taken ahead.
        assert await _used(shared) < 1_000_000 / 1000 + 200


async def _used(shared: dict[str, Any]) -> float:
    if shared["limits"]["store"] == "database":
        from sqlalchemy import select

        from gateway.database.tables import LimitCounterRow
        from tests.support.databases import open_database

        database = open_database(shared["database"]["url"])
        async with database.read() as session:
            budget = LimitCounterRow.key.startswith("tokens_per_month")
            found = await session.execute(select(LimitCounterRow.used).where(budget))
            used = found.scalar_one()
        await database.aclose()
        return float(used)
    from redis.asyncio import Redis

    async with Redis.from_url(shared["limits"]["store"]) as client:
        [key] = await client.keys("*tokens_per_month*")
        return float(await client.hget(key, "used"))
