"""kill -9 in the middle of a batch: another process goes on where it was, no line that has its
result is asked again, and every line is in the files once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from sqlalchemy import select

from gateway.database.tables import BatchLineRow
from tests.support.batches import CHAT, chat_line, finished, made, results
from tests.support.databases import open_database, sqlite_url
from tests.support.gateway import GatewayProcess
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

LINES = 300
CONCURRENCY = 8
KILLS = 2
NAMES = [f"line-{number}" for number in range(LINES)]
WRONG = set(NAMES[::50])


class Mortal:
    """A gateway that is killed and started again, and a look into its database."""

    def __init__(self, process: GatewayProcess, database_url: str) -> None:
        self.process = process
        self._database_url = database_url

    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.process.base_url, api_key="none", max_retries=5)

    async def lines_done(self) -> set[int]:
        database = open_database(self._database_url)
        try:
            async with database.read() as session:
                return set((await session.execute(select(BatchLineRow.position))).scalars())
        finally:
            await database.aclose()

    async def until_done(self, count: int) -> None:
        """Wait until so many lines have results."""
        async with asyncio.timeout(60):
            while len(await self.lines_done()) < count:
                await asyncio.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database on each kind there is."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def mortal(url: str, upstream: FakeVllm) -> AsyncIterator[Mortal]:
    config = {
        "discover": [upstream.url],
        "database": {"url": url},
        "ingestion": {"lease_seconds": 1.5},
        "batches": {"concurrency": CONCURRENCY},
    }
    async with GatewayProcess(config, models=["fake-chat"]) as process:
        yield Mortal(process, url)


def counted(upstream: FakeVllm) -> Counter[str]:
    """How often each line was asked."""
    return Counter(
        request.json["messages"][0]["content"]
        for request in upstream.requests_to(CHAT)
        if request.method == "POST"
    )


async def test_what_one_process_was_killed_at_another_one_finishes(
    mortal: Mortal, upstream: FakeVllm
):
    """Every custom_id once in output and errors, and lines with a result are asked once."""
    upstream.behave(CHAT, faults.slow(before_head=0.05))
    lines = [chat_line(name, **({"temperature": -1} if name in WRONG else {})) for name in NAMES]
    settled: dict[str, int] = {}
    async with mortal.client() as client:
        batch = await made(client, lines)
    for kill in range(1, KILLS + 1):
        await mortal.until_done(LINES * kill // (KILLS + 2))
        await asyncio.to_thread(mortal.process.kill)
        asked = counted(upstream)
        for number in await mortal.lines_done():
            settled.setdefault(NAMES[number - 1], asked[NAMES[number - 1]])
        await asyncio.to_thread(mortal.process.start)
    async with mortal.client() as client:
        batch = await finished(client, batch, within=60)
        output = [one["custom_id"] for one in await results(client, batch.output_file_id)]
        errors = [one["custom_id"] for one in await results(client, batch.error_file_id)]
        files = [file async for file in client.files.list(purpose="batch_output")]
    assert batch.status == "completed"
    assert output == [name for name in NAMES if name not in WRONG]
    assert errors == [name for name in NAMES if name in WRONG]
    counts = batch.request_counts
    assert (counts.total, counts.completed) == (LINES, LINES - len(WRONG))
    assert {file.id for file in files} == {batch.output_file_id, batch.error_file_id}
    asked = counted(upstream)
    assert len(settled) >= LINES // 2
    assert {name: asked[name] for name in settled} == settled
    again = sum(asked.values()) - LINES
    assert again <= KILLS * (CONCURRENCY + 64), "more than what was under way"
    async with asyncio.timeout(30):  # a moment after it is completed
        while await mortal.lines_done():
            await asyncio.sleep(0.05)


async def test_the_other_replica_goes_on(postgres_url: str, upstream: FakeVllm, tmp_path: Path):
    """The one of two that has a batch is killed and not started again; the other one ends it."""
    upstream.behave(CHAT, faults.slow(before_head=0.1))
    config = {
        "discover": [upstream.url],
        "database": {"url": postgres_url},
        "objects": {"kind": "disk", "path": str(tmp_path / "objects")},
        "ingestion": {"lease_seconds": 2},
    }
    async with AsyncExitStack() as stack:
        both = [GatewayProcess(config, models=["fake-chat"]) for _ in range(2)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in both))
        async with AsyncOpenAI(base_url=both[0].base_url, api_key="none") as client:
            batch = await made(client, map(chat_line, NAMES[:200]))
            while batch.request_counts.completed < 20:
                await asyncio.sleep(0.05)
                batch = await client.batches.retrieve(batch.id)
        both.sort(key=has_a_batch)
        survivor, holder = both
        await asyncio.to_thread(holder.kill)
        async with AsyncOpenAI(base_url=survivor.base_url, api_key="none") as client:
            batch = await finished(client, batch, within=30)
            assert batch.status == "completed"
            found = [one["custom_id"] for one in await results(client, batch.output_file_id)]
            assert found == NAMES[:200]


def has_a_batch(gateway: GatewayProcess) -> bool:
    """By its own metrics."""
    _, metrics = gateway.get("/metrics")
    return b"understudy_batch_active 1.0" in metrics
