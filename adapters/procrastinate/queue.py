"""The ``JobQueue`` port on PostgreSQL, which any number of replicas and workers share.

Tables, functions, triggers and notifications are procrastinate's (its command line and its other
tools see these jobs); what talks to them is the gateway's own connection pool, so that a job is put
in the transaction of the row that it belongs to. The loop is ``adapters.worker``'s rather than
procrastinate's, whose worker ends a job by its number alone: a worker that lost a lease would end
or restart the job of the one that has it now, two replicas that look after a dead worker would both
hand out its jobs, and a job whose end can't be written for a moment would stay in work for ever.
Here every statement on a job in work names the worker that has it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from adapters.procrastinate import statements
from adapters.procrastinate.schema import install
from adapters.procrastinate.statements import CHANNEL, PREFIX
from adapters.worker import Timing, Worker
from gateway.database.engine import Database
from gateway.errors import UpstreamError
from gateway.ports.job_queue import Handler, Job

__all__ = ["ProcrastinateQueue"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
"""How soon a job that was put off is seen; of new ones PostgreSQL tells at once."""

_STEADY = 2.5
"""So many times the usual pause may lie between two renewals of who looks for the dead."""

_LISTEN_CHECK_SECONDS = 15.0
_LISTEN_PAUSE_SECONDS = 1.0
_LISTENING_TROUBLE = (
    UpstreamError,
    SQLAlchemyError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that broke in the middle of a question
)


class ProcrastinateQueue:
    """Jobs in ``database``. A lease is a worker's row whose heartbeat is fresh."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._timing = Timing(lease_seconds)
        self._bells: set[asyncio.Event] = set()

    async def start(self) -> None:
        await install(self._database)

    async def put(
        self, session: AsyncSession, kind: str, payload: Mapping[str, Any], *, delay: float = 0
    ) -> str:
        name = PREFIX + kind
        arguments = msgspec.json.encode(payload).decode()
        put = await session.execute(
            statements.PUT, {"name": name, "arguments": arguments, "delay": float(delay)}
        )
        return str(put.scalar_one())

    def wake(self) -> None:
        for bell in self._bells:
            bell.set()

    async def work(self, handlers: Mapping[str, Handler], *, concurrency: int) -> None:
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            async with self._listening():
                await Worker(
                    _PostgresLeases(self._database, self._timing),
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

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        listener = asyncio.create_task(self._listen(), name="listen for jobs")
        try:
            yield
        finally:
            listener.cancel()
            with suppress(asyncio.CancelledError, *_LISTENING_TROUBLE):
                await listener

    async def _listen(self) -> None:
        """Hear of new jobs; while that fails, workers see them when they look."""
        while True:
            try:
                async with self._database.alone() as connection:
                    raw = (await connection.get_raw_connection()).driver_connection
                    assert raw is not None
                    await raw.add_listener(CHANNEL, lambda *_: self.wake())
                    self.wake()  # for what was put before
                    await self._until_gone(raw)
            except _LISTENING_TROUBLE as error:
                logger.debug("Can't listen for jobs now, only look for them: %s", error)
            await asyncio.sleep(_LISTEN_PAUSE_SECONDS)

    @staticmethod
    async def _until_gone(connection: Any) -> None:
        """Return or raise once the connection is gone; an idle one is asked now and then."""
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        while not gone.is_set():
            try:
                async with asyncio.timeout(_LISTEN_CHECK_SECONDS):
                    await gone.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=_LISTEN_CHECK_SECONDS)


class _PostgresLeases:
    def __init__(self, database: Database, timing: Timing) -> None:
        self._database = database
        self._timing = timing
        self._worker: int | None = None
        self._renewed_at = -math.inf

    async def take(self, kinds: Sequence[str], limit: int) -> list[Job]:
        worker = await self._registered()
        names = [PREFIX + kind for kind in kinds]
        try:
            async with self._database.begin() as session:
                taken = await session.execute(
                    statements.TAKE, {"names": names, "worker": worker, "limit": limit}
                )
                rows = taken.all()
        except IntegrityError:
            self._worker = None  # the others took it for dead; the next look is under a new name
            return []
        return [
            Job(
                id=str(row.id),
                kind=row.task_name.removeprefix(PREFIX),
                payload=msgspec.json.decode(row.args),
                attempt=row.attempts + 1,
            )
            for row in rows
        ]

    async def renew(self, jobs: Collection[str]) -> set[str]:
        """Also frees what dead workers hold, and what this one took without knowing.

        (The answer to a ``take`` can be lost with its connection.) A worker that could not renew
        its own leases just now takes nobody for dead yet: the others could not either.
        """
        worker = await self._registered()
        async with self._database.begin() as session:
            alive = await session.execute(statements.HEARTBEAT, {"worker": worker})
            if alive.first() is None:
                self._worker = None
            own = {"worker": worker, "jobs": [int(job) for job in jobs]}
            await session.execute(statements.FREE_UNKNOWN, own)
            held = (await session.execute(statements.HELD, {"worker": worker})).scalars().all()
        now = time.monotonic()
        steady = now - self._renewed_at < _STEADY * self._timing.renewal
        self._renewed_at = now
        if steady:
            await self._free_dead()
        return {str(job) for job in held}

    async def _free_dead(self) -> None:
        """Not while its own heartbeat is locked, which others may be waiting for."""
        async with self._database.begin() as session:
            freed = await session.execute(statements.FREE_DEAD, {"expiry": self._timing.expiry})
            if count := len(freed.all()):
                logger.warning("%d jobs of workers that are gone are free again", count)

    async def finish(self, job: str) -> None:
        async with self._database.begin() as session:
            await session.execute(statements.FINISH, {"job": int(job), "worker": self._worker})

    async def postpone(self, job: str, seconds: float) -> None:
        async with self._database.begin() as session:
            await session.execute(
                statements.POSTPONE,
                {"job": int(job), "worker": self._worker, "seconds": float(seconds)},
            )

    async def leave(self) -> None:
        if self._worker is not None:
            async with self._database.begin() as session:
                await session.execute(statements.HEARTBEAT, {"worker": self._worker})  # locks it
                await session.execute(statements.LEAVE, {"worker": self._worker})
                await session.execute(statements.UNREGISTER, {"worker": self._worker})
            self._worker = None

    async def _registered(self) -> int:
        if self._worker is None:
            async with self._database.begin() as session:
                registered = await session.execute(statements.REGISTER)
                self._worker = int(registered.scalar_one())
        return self._worker
