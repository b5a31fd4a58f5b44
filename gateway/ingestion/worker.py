"""What does the work: inside the server, or in ``understudy worker``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.ingestion.cleanup import CleanupService
from gateway.ingestion.reaper import Reaper
from gateway.ingestion.service import IngestionService
from gateway.ingestion.workspace import Workspace
from gateway.ports import Handler, JobQueue

__all__ = ["Work", "Worker"]

_CLEANUPS_AT_ONCE = 2


class Work(Struct, frozen=True, kw_only=True):
    """Kinds of jobs that have turns of their own, so many at once."""

    handlers: Mapping[str, Handler]
    at_once: int


class Worker:
    """Takes jobs from the queue and runs the reaper.

    Deleting has turns of its own, so that it doesn't wait for long documents.
    """

    def __init__(
        self,
        queue: JobQueue,
        ingestion: IngestionService,
        cleanup: CleanupService,
        reaper: Reaper,
        workspace: Workspace,
        *,
        files_at_once: int,
        others: Sequence[Work] = (),
    ) -> None:
        self._queue = queue
        self._ingestion = ingestion
        self._cleanup = cleanup
        self._reaper = reaper
        self._workspace = workspace
        self._files_at_once = files_at_once
        self._others = others

    async def run(self) -> None:
        """Until cancelled; jobs that are in work then go to another worker at once."""
        ingest = {"ingest_file": self._ingestion.ingest}
        async with self._workspace.open(), asyncio.TaskGroup() as group:
            group.create_task(self._queue.work(ingest, concurrency=self._files_at_once))
            group.create_task(
                self._queue.work(self._cleanup.handlers(), concurrency=_CLEANUPS_AT_ONCE)
            )
            for work in self._others:
                group.create_task(self._queue.work(work.handlers, concurrency=work.at_once))
            group.create_task(self._reaper.run())
