"""What outlives a request: database, objects, vectors, the queue, and how long each lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from gateway.database.engine import Database
from gateway.database.migrate import SchemaMismatch
from gateway.errors import UpstreamError
from gateway.ports import DocumentConverter, JobQueue, ObjectStore, VectorIndex

__all__ = ["State"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0


class State:
    """The stateful ports, made ready together and closed together.

    A database or object store that can't be reached when the gateway starts doesn't keep it from
    relaying: it is tried again in the background, and ``ready`` is false until it is there.
    """

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        index: VectorIndex,
        converter: DocumentConverter,
        queue: JobQueue,
        upgrade: Callable[[Database], Awaitable[object]],
    ) -> None:
        self.database = database
        self.objects = objects
        self.index = index
        self.converter = converter
        self.queue = queue
        self._upgrade = upgrade
        self.ready = False
        self.draining = False
        """Whether this process is about to end."""
        self._background: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(
        self,
        work: Callable[[], Awaitable[None]] | None,
        *,
        within: AbstractAsyncContextManager[None] | None = None,
    ) -> AsyncIterator[None]:
        """Make ready, and do ``work`` (the ingestion worker's loop) while the block runs.

        ``within`` is entered before work begins, and left after its end.

        Raises ``SchemaMismatch`` where the database is of another version.
        """
        try:
            await self._try_to_prepare()
            async with within or nullcontext():
                self._background = asyncio.create_task(self._run(work), name="state")
                try:
                    yield
                finally:
                    await self.retire()
        finally:
            await self._close()

    async def retire(self) -> None:
        """End the background work; other workers get what it had taken. Requests go on."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait([self._background])

    async def prepare(self) -> None:
        """Bring the schema up to date and make bucket and queue. Raises ``UpstreamError``."""
        await self._upgrade(self.database)
        await self.objects.start()
        await self.queue.start()
        self.ready = True

    async def _run(self, work: Callable[[], Awaitable[None]] | None) -> None:
        """Prepare until it works, then work; a loop that fails is logged and begun again."""
        task = asyncio.current_task()
        assert task is not None  # this is a coroutine
        pause = _FIRST_PAUSE_SECONDS
        while not self.ready:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                await self._try_to_prepare()
            except SchemaMismatch as error:  # at the start it would have ended the process
                logger.error("Never ready to keep state: %s", error)  # noqa: TRY400  (no fault)
                return
            except Exception:
                logger.exception("Making ready to keep state failed; it is tried again")
        while work is not None:
            try:
                await work()
            except Exception:
                logger.exception("The ingestion worker failed; it begins again")
                if task.cancelling():
                    return  # a task group that ends by a failure forgets that it was cancelled
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    async def _try_to_prepare(self) -> None:
        try:
            await self.prepare()
        except UpstreamError as error:
            logger.warning("Not ready to keep state: %s", error.message)

    async def _close(self) -> None:
        """In the order of who uses whom; one that fails doesn't keep the next one open."""
        for close in (
            self.queue.aclose,
            self.converter.aclose,
            self.index.aclose,
            self.objects.aclose,
            self.database.aclose,
        ):
            try:
                await close()
            except Exception:
                logger.exception("Closing failed")
