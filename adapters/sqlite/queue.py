"""The ``JobQueue`` port on the table ``jobs``, for one machine: its processes share a file."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from adapters.worker import Timing, Worker
from gateway.database.engine import Database
from gateway.database.identifiers import new_id
from gateway.database.tables import JobRow
from gateway.ports.job_queue import Handler, Job

__all__ = ["SqliteQueue"]

_POLL_SECONDS = 0.5
"""How soon a worker sees what another process has put; ``wake`` is for its own."""


class SqliteQueue:
    """Jobs in ``database``. A lease is the time until which a job isn't due, and its holder."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._timing = Timing(lease_seconds)
        self._bells: set[asyncio.Event] = set()

    async def start(self) -> None:
        """Nothing: the table is part of the schema."""

    async def put(
        self, session: AsyncSession, kind: str, payload: Mapping[str, Any], *, delay: float = 0
    ) -> str:
        id_ = new_id("job_")
        row = {"kind": kind, "payload": dict(payload), "due_at": time.time() + delay, "attempt": 0}
        await session.execute(insert(JobRow).values(id=id_, **row))
        return id_

    def wake(self) -> None:
        for bell in self._bells:
            bell.set()

    async def work(self, handlers: Mapping[str, Handler], *, concurrency: int) -> None:
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            await Worker(
                _SqliteLeases(self._database, self._timing),
                handlers,
                concurrency=concurrency,
                timing=self._timing,
                bell=bell,
                poll_seconds=_POLL_SECONDS,
            ).run()
        finally:
            self._bells.discard(bell)

    async def aclose(self) -> None:
        """Nothing: the database's owner closes it."""


class _SqliteLeases:
    def __init__(self, database: Database, timing: Timing) -> None:
        self._database = database
        self._timing = timing
        self._holder = uuid.uuid4().hex

    async def take(self, kinds: Sequence[str], limit: int) -> list[Job]:
        moment = time.time()
        due = (
            select(JobRow.id)
            .where(JobRow.due_at <= moment, JobRow.kind.in_(kinds))
            .order_by(JobRow.due_at)
            .limit(limit)
        )
        # Looking is cheap and keeps nobody from writing; most looks find nothing.
        async with self._database.read() as session:
            if (await session.execute(due.limit(1))).first() is None:
                return []
        async with self._database.begin() as session:
            taken = await session.execute(
                update(JobRow)
                .where(JobRow.id.in_(due))
                .values(
                    holder=self._holder,
                    attempt=JobRow.attempt + 1,
                    due_at=moment + self._timing.expiry,
                )
                .returning(JobRow.id, JobRow.kind, JobRow.payload, JobRow.attempt),
                execution_options={"synchronize_session": False},
            )
            return [
                Job(id=row.id, kind=row.kind, payload=row.payload, attempt=row.attempt)
                for row in taken
            ]

    async def renew(self, jobs: Collection[str]) -> set[str]:
        if not jobs:
            return set()
        async with self._database.begin() as session:
            held = await session.execute(
                update(JobRow)
                .where(JobRow.id.in_(jobs), JobRow.holder == self._holder)
                .values(due_at=time.time() + self._timing.expiry)
                .returning(JobRow.id),
                execution_options={"synchronize_session": False},
            )
            return set(held.scalars())

    async def finish(self, job: str) -> None:
        async with self._database.begin() as session:
            await session.execute(
                delete(JobRow).where(JobRow.id == job, JobRow.holder == self._holder)
            )

    async def postpone(self, job: str, seconds: float) -> None:
        async with self._database.begin() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.id == job, JobRow.holder == self._holder)
                .values(holder=None, due_at=time.time() + seconds)
            )

    async def leave(self) -> None:
        async with self._database.begin() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.holder == self._holder)
                .values(holder=None, due_at=time.time(), attempt=JobRow.attempt - 1)
            )
