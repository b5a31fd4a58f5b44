"""What time brings: things that expire, work that was forgotten, leftovers that are swept away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from gateway.errors import UpstreamError
from gateway.files.service import FileService
from gateway.ingestion.reconciler import Reconciler
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ports import JobQueue, ObjectStore
from gateway.settings import RetentionSettings
from gateway.uploads.service import UploadService

__all__ = ["Chore", "Reaper"]

logger = logging.getLogger(__name__)

Chore = Callable[[], Awaitable[int]]
"""Does a bounded amount of what is due, and says how much; called again until that is nothing."""

_FORGOTTEN_SECONDS = 3600
"""A file that no worker has touched for so long gets a new job."""

_SWEEPS_A_DAY = 4
_MOST_ROUNDS = 100
"""Of one task in one pass; the next pass goes on."""


class Reaper:
    """Runs beside the workers of every replica.

    All of it may run on several at once: a row is marked by one of them, and what is removed twice
    is gone. A task that fails is tried again with the next pass and keeps no other from running.
    """

    def __init__(
        self,
        files: FileService,
        uploads: UploadService,
        repository: TombstoneRepository,
        reconciler: Reconciler,
        objects: ObjectStore,
        queue: JobQueue,
        settings: RetentionSettings,
        chores: Mapping[str, Chore] | None = None,
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._repository = repository
        self._reconciler = reconciler
        self._objects = objects
        self._queue = queue
        self._settings = settings
        self._chores = chores or {}

    async def run(self) -> None:
        """For ever: expire every ``retention.interval_seconds``, sweep four times a day."""
        interval = self._settings.interval_seconds
        until_sweep = self._sweep_interval() * random.random()  # noqa: S311  (replicas take turns)
        while True:
            pause = interval * random.uniform(0.8, 1.2)  # noqa: S311
            await asyncio.sleep(pause)
            await self.expire()
            until_sweep -= pause
            if until_sweep <= 0:
                await self.sweep()
                until_sweep = self._sweep_interval()

    async def expire(self) -> None:
        """Files, uploads and stores whose time is over, and work that nobody does."""
        await self._attempt("expire files", self._files.delete_expired)
        await self._attempt("expire uploads", self._uploads.expire)
        await self._attempt("expire vector stores", self._expire_stores)
        await self._attempt("forget uploads", self._forget_uploads)
        await self._attempt("find forgotten work", self._remind)
        for what, chore in self._chores.items():
            await self._attempt(what, chore)

    async def sweep(self) -> None:
        """What dead processes left behind."""
        await self._attempt("sweep the object store", self._sweep_objects)
        await self._attempt("find orphans", self._reconcile)

    async def _expire_stores(self) -> int:
        done = await self._repository.expire_stores(self._queue)
        if done:
            self._queue.wake()
        return done

    async def _forget_uploads(self) -> int:
        return await self._repository.forget_uploads(self._settings.leftover_seconds)

    async def _remind(self) -> int:
        done = await self._repository.remind(
            self._queue,
            ingestion_seconds=_FORGOTTEN_SECONDS,
            deletion_seconds=self._settings.leftover_seconds,
        )
        if done.ingestions or done.deletions:
            logger.warning(
                "Work that nobody did: %d files, %d deletions", done.ingestions, done.deletions
            )
            self._queue.wake()
        return done.ingestions + done.deletions

    async def _sweep_objects(self) -> int:
        swept = await self._objects.sweep(self._settings.leftover_seconds)
        if swept:
            logger.info("%d unfinished writes of dead processes removed", swept)
        return 0

    async def _reconcile(self) -> int:
        await self._reconciler.run()
        return 0

    async def _attempt(self, what: str, task: Chore) -> None:
        """Do the task, a bounded number at a time, until it finds nothing more."""
        try:
            for _ in range(_MOST_ROUNDS):
                if not await task():
                    return
        except UpstreamError as error:
            logger.warning("Could not %s: %s", what, error.message)
        except Exception:
            logger.exception("Could not %s", what)

    def _sweep_interval(self) -> float:
        return self._settings.leftover_seconds / _SWEEPS_A_DAY
