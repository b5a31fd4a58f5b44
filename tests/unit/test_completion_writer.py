"""Completions are written while callers wait, who never wait for a database that is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select

from gateway.database.engine import Database
from gateway.database.identifiers import sequence
from gateway.database.tables import ChatCompletionMetadataRow, ChatCompletionRow
from gateway.errors import UpstreamUnavailable
from gateway.identity.principal import Principal
from gateway.observability.metrics import Metrics
from gateway.stored_completions import writer as writer_module
from gateway.stored_completions.repository import StoredCompletionRepository
from gateway.stored_completions.writer import CompletionWriter, FinishedCompletion
from tests.support.inprocess import until

pytestmark = pytest.mark.anyio


def finished(name: str, *, project: str = "default", **more: Any) -> FinishedCompletion:
    values = {"model": "m", "messages": [], "metadata": {}, "size": 10, **more}
    return FinishedCompletion(
        principal=Principal(project=project), completion={"id": name}, **values
    )


def outcomes(metrics: Metrics) -> dict[str, float]:
    name = "understudy_chat_completion_store_duration_seconds_count"
    return {
        sample.labels["understudy_store_outcome"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


async def names(database: Database) -> list[str]:
    async with database.read() as session:
        statement = select(ChatCompletionRow.id).order_by(ChatCompletionRow.id)
        return [*(await session.execute(statement)).scalars()]


class FlakyDatabase:
    """The real one, which can be away or slow."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.transactions = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        self.transactions += 1
        await self.open.wait()
        if self.away:
            raise UpstreamUnavailable("away", code="database_unavailable")
        async with self._database.begin() as session:
            yield session


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def flaky(database) -> FlakyDatabase:
    return FlakyDatabase(database)


@pytest.fixture
async def writer(flaky, metrics, monkeypatch):
    """One that waits long for a database that is slow only because the machine is busy."""
    monkeypatch.setattr(writer_module, "HOLD_SECONDS", 60)
    made = CompletionWriter(flaky, metrics)
    async with made.running():
        yield made


async def test_it_is_there_when_keeping_returns(writer, database, metrics):
    """With its metadata."""
    await writer.keep(finished("a", metadata={"k": "v"}))
    assert await names(database) == ["a"]
    async with database.read() as session:
        [pair] = (await session.execute(select(ChatCompletionMetadataRow))).scalars()
    assert (pair.completion_id, pair.key, pair.value) == ("a", "k", "v")
    assert outcomes(metrics) == {"stored": 1}


async def test_the_oldest_go_first(writer, database):
    """So many at a time, with their metadata."""
    for name in "abc":
        await writer.keep(finished(name, metadata={"k": "v"}))
    for left in (["c"], []):
        async with database.begin() as session:
            taken = await StoredCompletionRepository(session).delete_older(sequence(), 2)
        assert (taken, await names(database)) == (2 if left else 1, left)
    async with database.read() as session:
        assert (await session.execute(select(ChatCompletionMetadataRow))).first() is None


async def test_those_that_come_together_are_written_together(writer, flaky, database):
    """A write to disk for each would be a limit on throughput."""
    many = [finished(f"{number:02}") for number in range(40)]
    await asyncio.gather(*map(writer.keep, many))
    assert len(await names(database)) == 40
    assert flaky.transactions < 10


async def test_one_that_won_t_go_in_doesn_t_keep_others_out(writer, flaky, database, metrics):
    """An id that is taken is not written over, whoever's it is."""
    await writer.keep(finished("a", project="other", model="theirs"))
    flaky.open.clear()
    keeping = [asyncio.create_task(writer.keep(finished(name))) for name in "zabc"]
    await asyncio.sleep(0.05)
    flaky.open.set()
    await asyncio.gather(*keeping)
    assert await names(database) == ["a", "b", "c", "z"]
    async with database.read() as session:
        row = await session.get(ChatCompletionRow, "a")
        assert row is not None
        assert row.model == "theirs"
    assert outcomes(metrics) == {"stored": 4, "failed": 1}


async def test_a_database_that_is_away_holds_nobody_up(writer, flaky, database, metrics, caplog):
    """It is logged and counted; the next ones are tried all the same, and nobody waits for them."""
    flaky.away = True
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(writer.keep(finished("a")), 20)
    assert "not stored: away" in caplog.text
    flaky.open.clear()
    await asyncio.wait_for(writer.keep(finished("b")), 20)
    flaky.away = False
    flaky.open.set()
    await until(lambda: outcomes(metrics).get("stored") == 1, "b")
    await writer.keep(finished("c"))
    assert await names(database) == ["b", "c"]
    assert outcomes(metrics) == {"failed": 1, "stored": 2}


@pytest.mark.alone
async def test_a_slow_database_is_waited_for_no_longer_than_the_bound(
    writer, flaky, database, monkeypatch
):
    """It goes in behind the caller's back."""
    monkeypatch.setattr(writer_module, "HOLD_SECONDS", 0.5)
    flaky.open.clear()
    began = time.perf_counter()
    await writer.keep(finished("a"))
    assert 0.4 < time.perf_counter() - began < 3
    began = time.perf_counter()
    await writer.keep(finished("b"))
    assert time.perf_counter() - began < 0.4
    flaky.open.set()
    async with asyncio.timeout(20):
        while await names(database) != ["a", "b"]:
            await asyncio.sleep(0.01)


async def test_a_caller_who_leaves_doesn_t_undo_it(writer, flaky, database):
    """The answer was complete."""
    flaky.open.clear()
    keeping = asyncio.create_task(writer.keep(finished("a")))
    await asyncio.sleep(0.01)
    keeping.cancel()
    flaky.open.set()
    async with asyncio.timeout(20):
        while await names(database) != ["a"]:
            await asyncio.sleep(0.01)


async def test_what_waits_is_bounded(writer, flaky, metrics, monkeypatch):
    """What is beyond is dropped, and counted."""
    monkeypatch.setattr(writer_module, "MAX_WAITING_BYTES", 25)
    flaky.open.clear()
    keeping = [asyncio.create_task(writer.keep(finished(name))) for name in "ab"]
    await asyncio.sleep(0.01)
    await asyncio.wait_for(writer.keep(finished("c")), 20)
    assert outcomes(metrics) == {"dropped": 1}
    flaky.open.set()
    await asyncio.gather(*keeping)
    await writer.keep(finished("d"))
    assert outcomes(metrics) == {"dropped": 1, "stored": 3}


async def test_what_waits_at_the_end_is_still_written(flaky, database, metrics):
    """A gateway that shuts down has told its callers nothing else."""
    writer = CompletionWriter(flaky, metrics)
    async with writer.running():
        keeping = asyncio.create_task(writer.keep(finished("a")))
        await asyncio.sleep(0)
    await keeping
    assert await names(database) == ["a"]


async def test_a_fault_of_ours_doesn_t_end_the_writing(
    writer, database, metrics, monkeypatch, caplog
):
    """It is logged with its traceback."""
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "StoredCompletionRepository", None)
        await writer.keep(finished("a"))
    await writer.keep(finished("b"))
    assert await names(database) == ["b"]
    assert outcomes(metrics) == {"failed": 1, "stored": 1}
    assert "TypeError" in caplog.text
