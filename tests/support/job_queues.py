"""Replicas that share a queue, each with its own connection, in the test's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from gateway.beside import beside
from gateway.database.engine import Database
from gateway.ports import Handler, Job, JobQueue
from gateway.settings import DatabaseSettings
from tests.support.queue_worker import queue_on

LONG = 60.0


class Replica:
    """A database, as one process has it opened, and the queue on it."""

    def __init__(self, settings: DatabaseSettings, lease_seconds: float = LONG) -> None:
        self.database = Database(settings, Path("/nonexistent"))
        self.queue: JobQueue = queue_on(self.database, lease_seconds)

    async def put(self, kind: str, payload: Mapping[str, Any], **options: Any) -> str:
        async with self.database.begin() as session:
            return await self.queue.put(session, kind, payload, **options)

    def working(
        self, concurrency: int = 4, **handlers: Handler
    ) -> AbstractAsyncContextManager[None]:
        return beside(self.queue.work(handlers, concurrency=concurrency), "working")

    async def jobs(self) -> int:
        """How many are there, due or not, in work or not."""
        table = "jobs" if self.database.is_sqlite else "procrastinate_jobs"
        async with self.database.read() as session:
            found = await session.execute(text(f"SELECT count(*) FROM {table}"))
            return int(found.scalar_one())

    async def done(self) -> None:
        await eventually(self.jobs, lambda count: count == 0)


async def eventually(
    ask: Callable[[], Any], good: Callable[[Any], bool] = bool, seconds: float = 60
) -> Any:
    """What `ask` says once it is good."""
    deadline = time.monotonic() + seconds
    while True:
        got = ask()
        got = await got if asyncio.iscoroutine(got) else got
        if good(got):
            return got
        assert time.monotonic() < deadline, f"still {got!r} after {seconds} s"
        await asyncio.sleep(0.05)


class Recorder:
    """A handler that notes what it gets and when."""

    def __init__(self, seconds: float = 0) -> None:
        self.jobs: list[Job] = []
        self.times: list[float] = []
        self.ended = 0
        self.at_once = 0
        self.most_at_once = 0
        self._seconds = seconds

    async def __call__(self, job: Job) -> None:
        self.jobs.append(job)
        self.times.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.at_once -= 1
        self.ended += 1
