"""Blocking calls off the event loop: so many at once, and each one followed to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from gateway.errors import ShuttingDown, UpstreamUnavailable

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
"""How long a cancelled caller stays for the end of its call. What is undone then is undone later,
while the process lives."""

ResultT = TypeVar("ResultT")


class Threads:
    """A bounded number of threads for calls that block.

    A call that has begun can't be taken back, so ``run`` waits for its end even when it is
    cancelled: what follows, such as removing what was written, then meets no call still at work.
    Callers wait for a free thread in the order in which they came, for ``patience`` seconds.
    """

    def __init__(self, limit: int, *, name: str, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._free = asyncio.Semaphore(limit)
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix=name)
        self._closed = False
        self._settling: set[asyncio.Task[None]] = set()

    async def run(
        self,
        call: Callable[..., ResultT],
        *arguments: Any,
        undo: Callable[[ResultT], None] | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> ResultT:
        """Call it in a thread.

        When this is cancelled, ``interrupt`` may cut the call short, and ``undo`` is called in a
        thread with a result that nobody has seen. Raises ``UpstreamUnavailable`` when no thread
        comes free in time.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise UpstreamUnavailable(f"The {self._name} store is too busy.") from None
        if self._closed:
            self._free.release()
            raise ShuttingDown("The gateway is shutting down.")
        # Never cancelled itself, so that it tells when the thread is free again.
        job = asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *arguments))
        job.add_done_callback(lambda _: self._free.release())
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if interrupt is not None and not job.done():
                interrupt()
            await self.settle(self._ended(job, undo))
            raise

    async def _ended(
        self, job: asyncio.Future[ResultT], undo: Callable[[ResultT], None] | None
    ) -> None:
        await asyncio.wait({job})
        if job.cancelled() or job.exception() is not None:
            return  # looked at, so that asyncio doesn't report it as never seen
        if undo is not None:
            await self.run(undo, job.result())

    async def settle(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this to its end whatever happens to the caller, who waits a while for it.

        What it raises is logged: the caller is on its way out with an error of its own.
        """
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settled)
        await asyncio.wait({task}, timeout=SETTLE_SECONDS)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("The %s store: what was left could not be undone: %s", self._name, error)

    async def aclose(self) -> None:
        """Wait a while for what is being undone, and let the threads go."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=SETTLE_SECONDS)
        self._closed = True
        self._pool.shutdown(wait=False)
