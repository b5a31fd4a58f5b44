"""What holds for the queue on PostgreSQL alone: its notices, its leases and its tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from adapters.procrastinate.queue import _PostgresLeases
from adapters.procrastinate.schema import QueueOutdated, install
from adapters.worker import Timing
from gateway.settings import DatabaseSettings
from tests.support.databases import open_database
from tests.support.job_queues import LONG, Recorder, Replica
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.2


@pytest.mark.alone
async def test_postgresql_tells_of_new_jobs(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    """Without looking and without being woken, a worker elsewhere starts a job at once."""
    monkeypatch.setattr("adapters.procrastinate.queue._POLL_SECONDS", LONG)
    settings = DatabaseSettings(url=postgres_url)
    here, there = Replica(settings), Replica(settings)
    recorder = Recorder()
    async with there.working(sleep=recorder):
        await asyncio.sleep(0.3)
        started = time.monotonic()
        for _ in range(3):
            await here.put("sleep", {})
        await here.done()
        assert time.monotonic() - started < 5
    for replica in (here, there):
        await replica.database.aclose()


@asynccontextmanager
async def replicas_on(url: str, count: int) -> AsyncIterator[list[Replica]]:
    made = [Replica(DatabaseSettings(url=url)) for _ in range(count)]
    try:
        await asyncio.gather(*(one.queue.start() for one in made))
        yield made
    finally:
        for one in made:
            await one.queue.aclose()
            await one.database.aclose()


async def test_replicas_that_all_seem_dead_do_not_block_each_other(postgres_url: str):
    """As after an outage of the database: each says that it lives, and sees that no other does."""
    async with replicas_on(postgres_url, 5) as replicas:
        for number in range(20):
            await replicas[0].put("work", {"number": number})
        leases = [_PostgresLeases(one.database, Timing(LONG)) for one in replicas]
        for round_ in range(30):
            jobs = [{job.id for job in await one.take(["work"], 2)} for one in leases]
            assert round_ > 0 or all(len(held) == 2 for held in jobs)
            async with replicas[0].database.begin() as session:
                await session.execute(
                    text("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1h'")
                )
            # A deadlock is ended by PostgreSQL after a second, with an error for one of both.
            async with asyncio.timeout(60):
                renewals = (one.renew(held) for one, held in zip(leases, jobs, strict=True))
                await asyncio.gather(*renewals)
                await asyncio.gather(*(one.leave() for one in leases))


async def test_who_was_away_takes_nobody_for_dead(postgres_url: str):
    """After an outage all heartbeats are old; each worker gets the time to say that it lives."""
    async with replicas_on(postgres_url, 2) as (first, second):
        await first.put("work", {})
        timing = Timing(LEASE_SECONDS)
        quick, late = (_PostgresLeases(one.database, timing) for one in (first, second))
        [job] = await late.take(["work"], 1)
        await quick.renew([])
        await asyncio.sleep(timing.expiry + 0.2)  # the outage
        await quick.renew([])
        assert await late.renew([job.id]) == {job.id}
        deadline = time.monotonic() + 60
        while not await quick.take(["work"], 1):  # `late` is really away
            assert time.monotonic() < deadline
            await asyncio.sleep(timing.renewal)
            await quick.renew([])
        assert await late.renew([job.id]) == set()


@pytest.mark.alone
async def test_a_worker_that_froze_while_it_ended_a_job_holds_nobody_up(postgres_url: str):
    """Not those that look for the dead; the job is its own, and done, when it goes on."""
    async with replicas_on(postgres_url, 2) as (frozen, other):
        for _ in range(2):
            await frozen.put("work", {})
        timing = Timing(LEASE_SECONDS)
        his, ours = (_PostgresLeases(one.database, timing) for one in (frozen, other))
        done, left = sorted(int(job.id) for job in await his.take(["work"], 2))
        await ours.renew([])
        async with frozen.database.begin() as session:
            await session.execute(text(f"DELETE FROM procrastinate_jobs WHERE id = {done}"))
            async with asyncio.timeout(20):
                while not (freed := await ours.take(["work"], 2)):
                    await asyncio.sleep(timing.renewal)
                    async with asyncio.timeout(10):
                        await ours.renew([])
            assert [int(job.id) for job in freed] == [left]
        assert await other.jobs() == 1


async def test_replicas_install_the_tables_once(postgres: PostgresServer):
    """Any number may start at once on an empty database."""
    url = postgres.create_database()
    databases = [open_database(url) for _ in range(6)]
    made = await asyncio.gather(*(install(database) for database in databases))
    assert sorted(made) == [False] * 5 + [True]
    for database in databases:
        await database.aclose()
    postgres.drop_database(url)


async def test_tables_of_another_procrastinate_are_refused(postgres: PostgresServer):
    """Rather than failing in the middle of a request, the start says what is wrong."""
    url = postgres.create_database()
    postgres.run("CREATE TABLE procrastinate_jobs (id bigint)", url.rpartition("/")[2])
    database = open_database(url)
    with pytest.raises(QueueOutdated, match="older procrastinate"):
        await install(database)
    await database.aclose()
    postgres.drop_database(url)
