"""What the application may rely on of any `JobQueue`: SQLite's, and PostgreSQL's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.worker import Timing, Worker
from gateway.errors import UpstreamUnavailable
from gateway.ports import Job, TryAgain
from gateway.settings import DatabaseSettings
from tests.support.job_queues import LONG, Recorder, Replica, eventually
from tests.support.postgres import PostgresServer
from tests.support.queue_worker import QueueWorker

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.2
GRACE_SECONDS = 2.0  # for a machine that has much else to do


@pytest.fixture
async def replica(database_settings: DatabaseSettings) -> AsyncIterator[Replica]:
    made = Replica(database_settings)
    await made.queue.start()
    yield made
    await made.queue.aclose()
    await made.database.aclose()


@pytest.fixture
async def three(
    replica: Replica, database_settings: DatabaseSettings
) -> AsyncIterator[list[Replica]]:
    """Three replicas on one database."""
    others = [Replica(database_settings) for _ in range(2)]
    for other in others:
        await other.queue.start()
    yield [replica, *others]
    for other in others:
        await other.queue.aclose()
        await other.database.aclose()


@pytest.fixture
def seldom_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that hear of a job only from this process."""
    monkeypatch.setattr("adapters.sqlite.queue._POLL_SECONDS", LONG)
    monkeypatch.setattr("adapters.procrastinate.queue._POLL_SECONDS", LONG)
    monkeypatch.setattr("adapters.procrastinate.queue.CHANNEL", "nobody_speaks_here")


async def test_a_job_runs_once_and_is_gone(replica: Replica):
    """Its handler gets what was put, and nothing is left afterwards."""
    recorder = Recorder()
    payload = {"project": "größe", "id": "vsf_1", "nested": [1, None, {"a": "'\"%:x"}]}
    id_ = await replica.put("ingest_file", payload)
    async with replica.working(ingest_file=recorder):
        await replica.done()
        await asyncio.sleep(0.1)
    assert recorder.jobs == [Job(id=id_, kind="ingest_file", payload=payload, attempt=1)]


async def test_a_job_belongs_to_the_transaction_it_was_put_in(replica: Replica):
    """It is not seen before the commit, and a rolled-back one never is."""
    recorder = Recorder()
    async with replica.working(sleep=recorder):
        with suppress(ZeroDivisionError):
            async with replica.database.begin() as session:
                await replica.queue.put(session, "sleep", {"name": "never"})
                replica.queue.wake()
                _ = 1 / 0
        async with replica.database.begin() as session:
            await replica.queue.put(session, "sleep", {"name": "later"})
            replica.queue.wake()
            await asyncio.sleep(0.1)
            assert not recorder.jobs
        replica.queue.wake()
        await replica.done()
    assert [job.payload["name"] for job in recorder.jobs] == ["later"]


@pytest.mark.alone
async def test_waking_starts_a_job_at_once(replica: Replica, seldom_looking: None):
    """Who has committed a job and says so doesn't wait for the next look."""
    recorder = Recorder()
    delays = []
    async with replica.working(sleep=recorder):
        await asyncio.sleep(0.3)
        for count in range(1, 6):
            await replica.put("sleep", {})
            put = time.monotonic()
            replica.queue.wake()
            await eventually(lambda count=count: len(recorder.jobs) == count)
            delays.append(recorder.times[-1] - put)
    assert min(delays) < 0.2
    assert max(delays) < 5


@pytest.mark.alone
async def test_another_process_sees_a_job_soon(three: list[Replica]):
    """Without being woken, a worker elsewhere finds a job in about a second."""
    recorder = Recorder()
    async with three[1].working(sleep=recorder):
        await asyncio.sleep(0.7)
        put = time.monotonic()
        await three[0].put("sleep", {})
        await eventually(lambda: recorder.jobs)
        assert recorder.times[0] - put < 3


@pytest.mark.alone
async def test_workers_share_the_jobs_and_none_runs_twice(three: list[Replica]):
    """Five hundred jobs on three workers: each once, all of them in a few seconds."""
    recorders = [Recorder(), Recorder(), Recorder()]
    async with three[0].database.begin() as session:
        for number in range(500):
            await three[0].queue.put(session, "sleep", {"number": number})
    started = time.monotonic()
    async with (
        three[0].working(8, sleep=recorders[0]),
        three[1].working(8, sleep=recorders[1]),
        three[2].working(8, sleep=recorders[2]),
    ):
        await three[0].done()
    ran = Counter(job.payload["number"] for one in recorders for job in one.jobs)
    assert ran == Counter(range(500))
    assert all(recorder.jobs for recorder in recorders)
    assert time.monotonic() - started < 20


async def test_no_more_jobs_at_once_than_allowed(replica: Replica):
    """Concurrency is a limit, and it is used."""
    recorder = Recorder(seconds=0.05)
    for _ in range(12):
        await replica.put("sleep", {})
    async with replica.working(3, sleep=recorder):
        await replica.done()
    assert recorder.most_at_once == 3


async def test_a_kind_without_a_handler_is_left_to_others(three: list[Replica]):
    """It neither fails nor blocks what comes after it."""
    known, unknown = Recorder(), Recorder()
    await three[0].put("unknown", {})
    await three[0].put("known", {})
    async with three[0].working(known=known):
        await eventually(three[0].jobs, lambda count: count == 1)
        await asyncio.sleep(0.2)
        assert (known.ended, await three[0].jobs()) == (1, 1)
        async with three[1].working(unknown=unknown):
            await three[0].done()
    assert [job.attempt for job in unknown.jobs] == [1]


async def test_a_delayed_job_waits(replica: Replica):
    """It is there, but not due yet."""
    recorder = Recorder()
    put = time.monotonic()
    await replica.put("sleep", {}, delay=0.6)
    async with replica.working(sleep=recorder):
        replica.queue.wake()
        await replica.done()
    assert 0.55 <= recorder.times[0] - put < 10


async def test_try_again_runs_it_after_that_time(replica: Replica):
    """The handler says when; the attempts are counted."""
    recorder = Recorder()

    async def handler(job: Job) -> None:
        await recorder(job)
        if job.attempt < 3:
            raise TryAgain(0.3, "the model server is busy")

    await replica.put("sleep", {"name": "a"})
    async with replica.working(sleep=handler):
        await replica.done()
    assert [job.attempt for job in recorder.jobs] == [1, 2, 3]
    assert all(job.payload == {"name": "a"} for job in recorder.jobs)
    gaps = [
        later - former for former, later in zip(recorder.times, recorder.times[1:], strict=False)
    ]
    assert all(0.28 <= gap < 10 for gap in gaps)


async def test_a_failing_job_is_tried_again_with_growing_pauses(replica: Replica):
    """An error is no end, and neither keeps other jobs from running."""
    failing, other = Recorder(), Recorder()

    async def handler(job: Job) -> None:
        await failing(job)
        if job.attempt < 3:
            raise ValueError("broken")

    await replica.put("failing", {})
    async with replica.working(1, failing=handler, other=other):
        await eventually(lambda: failing.jobs)
        await replica.put("other", {})
        replica.queue.wake()
        await replica.done()
    assert other.times[0] < failing.times[1]
    assert [job.attempt for job in failing.jobs] == [1, 2, 3]
    first, second = (failing.times[1] - failing.times[0], failing.times[2] - failing.times[1])
    assert 0.7 <= first < 10
    assert 1.4 <= second < 10


async def test_an_outage_is_logged_in_a_line(replica: Replica, caplog: pytest.LogCaptureFixture):
    """A system that is away is no fault in the code, so a trace would only hide what is."""
    failing = Recorder()

    async def handler(job: Job) -> None:
        await failing(job)
        if job.attempt == 1:
            raise UpstreamUnavailable("The database can't be reached at the moment.")

    await replica.put("failing", {})
    async with replica.working(1, failing=handler):
        await replica.done()
    [record] = [one for one in caplog.records if "failed in attempt 1" in one.message]
    assert record.levelname == "WARNING"
    assert record.message.endswith("The database can't be reached at the moment.")
    assert record.exc_info is None


async def test_a_handler_that_cancels_itself_is_tried_again(replica: Replica):
    """Cancellation that nobody asked for is an error like others."""
    attempts: list[int] = []

    async def handler(job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise asyncio.CancelledError

    await replica.put("sleep", {})
    async with replica.working(sleep=handler):
        await replica.done()
    assert attempts == [1, 2]


@pytest.mark.alone
async def test_a_worker_that_ends_gives_its_jobs_back(three: list[Replica]):
    """Another one has them at once, long before the lease is over, and the attempt is forgotten."""
    first, second = Recorder(seconds=LONG), Recorder()
    for _ in range(3):
        await three[0].put("sleep", {})
    async with three[0].working(sleep=first):
        await eventually(lambda: len(first.jobs) == 3)
    async with three[1].working(sleep=second):
        started = time.monotonic()
        await three[0].done()
        assert time.monotonic() - started < 10
    assert first.ended == 0
    assert [job.attempt for job in second.jobs] == [1, 1, 1]
    assert {job.id for job in first.jobs} == {job.id for job in second.jobs}


@pytest.mark.alone
@pytest.mark.parametrize("error", [TryAgain(60, "broke off"), RuntimeError("broke off")])
async def test_a_handler_that_fails_of_being_stopped_gives_its_job_back(
    three: list[Replica], error: Exception
):
    """What it makes of its cancellation costs neither an attempt nor a pause."""
    taken = asyncio.Event()

    async def breaks(job: Job) -> None:
        taken.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    record = Recorder()
    await three[0].put("sleep", {})
    async with three[0].working(sleep=breaks):
        await taken.wait()
    async with three[1].working(sleep=record):
        started = time.monotonic()
        await three[0].done()
        assert time.monotonic() - started < 10
    assert [job.attempt for job in record.jobs] == [1]


@pytest.mark.alone
async def test_a_long_job_keeps_its_lease(database_settings: DatabaseSettings):
    """A job may run for many times the lease while its worker is alive."""
    holder, other = (Replica(database_settings, lease_seconds=0.6) for _ in range(2))
    await holder.queue.start()
    long, stolen = Recorder(seconds=1.8), Recorder()
    await holder.put("sleep", {})
    async with holder.working(sleep=long):
        await eventually(lambda: long.jobs)
        async with other.working(sleep=stolen):
            await holder.done()
    assert long.ended == 1
    assert not stolen.jobs
    for replica in (holder, other):
        await replica.database.aclose()


@pytest.mark.alone
async def test_jobs_of_killed_workers_go_on_within_the_lease(
    database_settings: DatabaseSettings, tmp_path: Path
):
    """kill -9 of two processes in the middle: each of their jobs runs again, and only those."""
    replica = Replica(database_settings, LEASE_SECONDS)
    await replica.queue.start()
    log, url = tmp_path / "log", str(database_settings.url)
    recorder = Recorder()
    with (
        QueueWorker(url, LEASE_SECONDS, log) as first,
        QueueWorker(url, LEASE_SECONDS, log) as second,
    ):
        for number in range(4):
            await replica.put("sleep", {"name": f"quick{number}", "seconds": 0})
        await eventually(lambda: sum(line.startswith("end") for line in first.lines()) == 4)
        for number in range(8):
            await replica.put("sleep", {"name": f"cut{number}", "seconds": LONG})
        await eventually(lambda: sum("start cut" in line for line in first.lines()) == 8)
        first.kill()
        second.kill()
        killed = time.monotonic()
    async with replica.working(8, sleep=recorder):
        await replica.done()
    assert max(recorder.times) - killed < LEASE_SECONDS + GRACE_SECONDS
    assert sorted(job.payload["name"] for job in recorder.jobs) == [f"cut{n}" for n in range(8)]
    assert {job.attempt for job in recorder.jobs} == {2}
    ran = Counter(line for line in first.lines() if line.startswith("start"))
    assert set(ran.values()) == {1}
    await replica.database.aclose()


@pytest.mark.alone
async def test_a_frozen_worker_does_not_disturb_who_took_over(
    database_settings: DatabaseSettings, tmp_path: Path
):
    """It stops its handler once it wakes, and can't end a job that another one has by now."""
    lease = 2.0  # both workers have to renew theirs on a machine that has much else to do
    replica = Replica(database_settings, lease)
    await replica.queue.start()
    log = tmp_path / "log"
    recorder, may_end = Recorder(), asyncio.Event()

    async def hold(job: Job) -> None:
        await recorder(job)
        await may_end.wait()

    with QueueWorker(str(database_settings.url), lease, log) as frozen:
        # One ends while its worker is frozen, the other would go on for long.
        await replica.put("sleep", {"name": "short", "seconds": 0.5 * lease})
        await replica.put("sleep", {"name": "long", "seconds": 2 * lease})
        await eventually(frozen.lines, lambda lines: len(lines) == 2)
        frozen.freeze()
        async with replica.working(sleep=hold):
            await eventually(lambda: len(recorder.jobs) == 2)
            frozen.thaw()
            await asyncio.sleep(lease)
            assert await replica.jobs() == 2
            may_end.set()
            await replica.done()
    assert [job.attempt for job in recorder.jobs] == [2, 2]
    assert sorted(frozen.lines()) == ["end short 1", "start long 1", "start short 1"]
    await replica.database.aclose()


async def test_a_database_that_goes_away_ends_no_job(tmp_path: Path):
    """What ends meanwhile is recorded when it is back, and the worker goes on."""
    recorder = Recorder(seconds=0.5)
    with PostgresServer() as server:
        replica = Replica(DatabaseSettings(url=server.url()))
        await replica.queue.start()
        await replica.put("sleep", {"name": "before"})
        async with replica.working(sleep=recorder):
            await eventually(lambda: recorder.jobs)
            server.kill()
            await eventually(lambda: recorder.ended)
            server.start()
            await replica.done()
            await replica.put("sleep", {"name": "after"})
            await replica.done()
        await replica.database.aclose()
    assert [job.payload["name"] for job in recorder.jobs] == ["before", "after"]


async def test_pauses_have_an_upper_limit():
    """However often a job has failed, it is tried again within a minute."""

    async def fail(_: Job) -> None:
        raise ValueError("broken")

    class OneJob:
        """A table with one job that has failed a thousand times."""

        postponed: list[float] = []  # noqa: RUF012

        async def take(self, kinds: Any, limit: int) -> list[Job]:
            return [] if self.postponed else [Job(id="1", kind="k", payload={}, attempt=1000)]

        async def postpone(self, job: str, seconds: float) -> None:
            self.postponed.append(seconds)

        async def leave(self) -> None: ...

    table: Any = OneJob()
    worker = Worker(
        table,
        {"k": fail},
        concurrency=1,
        timing=Timing(LONG),
        bell=asyncio.Event(),
        poll_seconds=0.01,
    )
    task = asyncio.create_task(worker.run())
    await eventually(lambda: table.postponed)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert 30 <= table.postponed[0] <= 60
