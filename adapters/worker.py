"""The loop of a worker, whatever table its jobs are in.

::

    take ──> handler ──┬── done ──────────────> finish
      ▲                ├── TryAgain, an error ─> postpone ──┐
      │                ├── this worker ends ──> leave ──────┤
      │                └── lease lost ────────> nothing     │
      └─────────────────────────────────────────────────────┘

A lease is renewed often enough that two renewals may fail before it is over, and it is over soon
enough that another worker has the job within ``lease_seconds`` of its holder's death.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import UpstreamError
from gateway.ports.job_queue import Handler, Job, TryAgain

__all__ = ["Leases", "Timing", "Worker"]

logger = logging.getLogger(__name__)

_DATABASE_TROUBLE = (UpstreamError, SQLAlchemyError, OSError)
_LONGEST_PAUSE_SECONDS = 60.0
_FIRST_OUTAGE_PAUSE_SECONDS = 0.1
_LONGEST_OUTAGE_PAUSE_SECONDS = 2.0
_HANDLERS_END_SECONDS = 10.0
_LEAVE_SECONDS = 5.0

ResultT = TypeVar("ResultT")


class Timing:
    """The times that follow from ``lease_seconds``, in seconds."""

    def __init__(self, lease_seconds: float) -> None:
        self.renewal = lease_seconds / 6
        """Between two renewals, and between two looks for leases of the dead."""
        self.expiry = lease_seconds * 2 / 3
        """From the last renewal to the end of a lease; a look later the job runs elsewhere."""


class Leases(Protocol):
    """One worker's dealings with the table of jobs. What is no longer its own it leaves alone."""

    async def take(self, kinds: Sequence[str], limit: int) -> list[Job]:
        """Up to ``limit`` jobs that are due, with a lease on each."""

    async def renew(self, jobs: Collection[str]) -> set[str]:
        """Renew the leases on these; which of them are still this worker's."""

    async def finish(self, job: str) -> None:
        """Remove it."""

    async def postpone(self, job: str, seconds: float) -> None:
        """Let go of it until then."""

    async def leave(self) -> None:
        """Let go of all that is left, now; those attempts don't count."""


class _Running:
    """A job in work. Its task may be cancelled while ``handling``, not while it settles."""

    __slots__ = ("handling", "job", "lost", "task")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.handling = True
        self.lost = False
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.handling and self.task is not None:
            self.task.cancel()


class Worker:
    """Runs handlers on what it takes, at most ``concurrency`` at once, until cancelled.

    ``bell`` is set when a job may be due; without it, the worker looks every ``poll_seconds``.
    """

    def __init__(
        self,
        leases: Leases,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int,
        timing: Timing,
        bell: asyncio.Event,
        poll_seconds: float,
    ) -> None:
        self._leases = leases
        self._handlers = handlers
        self._kinds = list(handlers)
        self._concurrency = concurrency
        self._timing = timing
        self._bell = bell
        self._poll_seconds = poll_seconds
        self._running: dict[str, _Running] = {}
        # What is taken is in `_running` before the next renewal says which jobs are in work.
        self._table = asyncio.Lock()
        self._ending = False

    async def run(self) -> None:
        keeper = asyncio.create_task(self._keep(), name="leases")
        try:
            while not keeper.done():
                self._bell.clear()
                await self._patiently(self._fill, "take jobs")
                await self._wait_for_bell()
            keeper.result()  # it ends by a fault only
        finally:
            self._ending = True
            keeper.cancel()
            # Its own task, so that being cancelled twice doesn't keep jobs from going back.
            await asyncio.shield(asyncio.create_task(self._end(keeper), name="give jobs back"))

    async def _fill(self) -> None:
        """Take jobs until there are none or hands are full."""
        while (free := self._concurrency - len(self._running)) > 0:
            async with self._table:
                jobs = await self._leases.take(self._kinds, free)
                for job in jobs:
                    if job.id not in self._running:  # else its lease was lost and came back
                        self._start(job)
            if len(jobs) < free:
                return

    def _start(self, job: Job) -> None:
        running = self._running[job.id] = _Running(job)
        running.task = asyncio.create_task(self._do(running), name=f"{job.kind} {job.id}")
        running.task.add_done_callback(lambda task: self._ended(running, task))

    def _ended(self, running: _Running, task: asyncio.Task[None]) -> None:
        del self._running[running.job.id]
        self._bell.set()  # a hand is free
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A job could not be settled", exc_info=error)

    async def _wait_for_bell(self) -> None:
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._bell.wait()
        except TimeoutError:
            return

    # One job.

    async def _do(self, running: _Running) -> None:
        job = running.job
        try:
            pause = await self._handle(running)
        finally:
            running.handling = False
        if pause is None:
            await self._patiently(lambda: self._leases.finish(job.id), "finish a job")
        else:
            await self._patiently(lambda: self._leases.postpone(job.id, pause), "postpone a job")

    async def _handle(self, running: _Running) -> float | None:
        """Seconds until it is to run again; ``None`` when it is done."""
        job = running.job
        try:
            await self._handlers[job.kind](job)
        except (Exception, asyncio.CancelledError) as error:
            if running.lost or self._ending:
                # A handler may make an error of being stopped: it costs the job no attempt.
                raise asyncio.CancelledError from error
            return self._pause(job, error)
        return None

    @staticmethod
    def _pause(job: Job, error: BaseException) -> float:
        """Say what went wrong; seconds until the next attempt."""
        match error:
            case TryAgain():
                logger.info(
                    "%s %s again in %g s: %s", job.kind, job.id, error.seconds, error.reason
                )
                return max(0.0, error.seconds)
            case asyncio.CancelledError():
                logger.warning("%s %s cancelled itself", job.kind, job.id)
            case UpstreamError():  # a system that is away, in words: no trace is needed
                logger.warning(
                    "%s %s failed in attempt %d: %s", job.kind, job.id, job.attempt, error.message
                )
            case _:
                logger.error(
                    "%s %s failed in attempt %d", job.kind, job.id, job.attempt, exc_info=error
                )
        longest = min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(job.attempt - 1, 10))
        return longest * random.uniform(0.75, 1)  # noqa: S311  (no secret)

    async def _patiently(self, act: Callable[[], Awaitable[ResultT]], what: str) -> ResultT:
        """Do it, again and again while the database can't be reached."""
        pause = _FIRST_OUTAGE_PAUSE_SECONDS
        while True:
            try:
                return await act()
            except _DATABASE_TROUBLE as error:
                if pause == _FIRST_OUTAGE_PAUSE_SECONDS:  # once for each outage
                    logger.warning("Can't %s now: %s", what, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_OUTAGE_PAUSE_SECONDS)

    # Leases.

    async def _keep(self) -> None:
        """Renew leases, and stop the work on what another worker has taken over."""
        while True:
            await asyncio.sleep(self._timing.renewal)
            await self._patiently(self._renew, "renew leases")

    async def _renew(self) -> None:
        async with self._table:
            held = await self._leases.renew(list(self._running))
            for id_, running in self._running.items():
                if id_ not in held and running.handling:
                    logger.warning("%s %s: lease lost", running.job.kind, id_)
                    running.lost = True
                    running.cancel()
        self._bell.set()  # what the dead have left may be due

    async def _end(self, keeper: asyncio.Task[None]) -> None:
        """Stop handlers, let what is done be recorded, give the rest back."""
        await asyncio.wait([keeper])
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for running in self._running.values():
            running.cancel()
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=_HANDLERS_END_SECONDS)
            for task in stubborn:
                task.cancel()
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._leases.leave()
        except _DATABASE_TROUBLE as error:
            logger.warning("Can't give back jobs, which wait for their leases' end: %s", error)
