"""Requests that hold a caller's secrets, and the process that alone can do them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.database.engine import Database
from gateway.errors import GatewayError, RateLimited
from gateway.ports import Handler, Job, JobQueue, TryAgain
from gateway.responses.repository import ResponseRepository

__all__ = ["PrivateRequests"]

logger = logging.getLogger(__name__)

TOUCH_SECONDS = 10.0
MOST_HELD = 1000
_PAUSE_SECONDS = 2.0


class PrivateRequests:
    """In memory only, by the response's id: a token of a caller's is never stored.

    No job in the queue stands for one, since no other process could do it. This process says in
    their rows that it has them; once it is gone nobody does, and the reaper finds them. When it
    ends in order it leaves jobs behind, by which they fail at once.
    """

    def __init__(self, database: Database, queue: JobQueue, *, at_once: int) -> None:
        self._database = database
        self._queue = queue
        self._turns = asyncio.Semaphore(at_once)
        self._held: dict[str, tuple[str, dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._work: Handler | None = None

    def hold(self, project: str, response_id: str, body: Mapping[str, Any]) -> None:
        """Raises ``RateLimited`` where there are too many already."""
        if len(self._held) >= MOST_HELD:
            raise RateLimited("Too many responses with credentials are waiting. Try again later.")
        self._held[response_id] = (project, dict(body))

    def begin(self, response_id: str) -> None:
        """What is held has a row now."""
        task = asyncio.create_task(self._make(response_id), name=f"private {response_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def get(self, response_id: str) -> dict[str, Any] | None:
        found = self._held.get(response_id)
        return None if found is None else found[1]

    def forget(self, response_id: str) -> None:
        self._held.pop(response_id, None)

    @asynccontextmanager
    async def worked_on(self, handler: Handler) -> AsyncIterator[None]:
        """The time in which they are made and their rows are touched."""
        self._work = handler
        toucher = asyncio.create_task(self._touch(), name="hold private responses")
        try:
            yield
        finally:
            tasks = [toucher, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._give_up()

    async def _make(self, response_id: str) -> None:
        """Attempt it until it is over, as the queue does with others."""
        assert self._work is not None  # requests are taken only while it is worked on them
        attempt = 1
        while (held := self._held.get(response_id)) is not None:
            payload = {"project": held[0], "id": response_id}
            job = Job(id=response_id, kind="run_response", payload=payload, attempt=attempt)
            pause = _PAUSE_SECONDS
            try:
                async with self._turns:
                    await self._work(job)
            except TryAgain as again:
                pause = again.seconds
                attempt += 1
            except GatewayError as error:  # the database's: no fault of the attempt
                logger.warning("Response %s has to wait: %s", response_id, error.message)
            except Exception:
                logger.exception("Response %s failed in attempt %d", response_id, attempt)
                attempt += 1
            else:
                return
            await asyncio.sleep(pause)

    async def _give_up(self) -> None:
        """Have what is left fail now rather than when the reaper finds it."""
        left, self._held = self._held, {}
        if not left:
            return
        try:
            async with self._database.begin() as session:
                for response_id, (project, _) in left.items():
                    payload = {"project": project, "id": response_id}
                    await self._queue.put(session, "run_response", payload)
        except GatewayError as error:
            logger.warning("%d private responses fail only later: %s", len(left), error.message)

    async def _touch(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_SECONDS)
            if not self._held:
                continue
            try:
                async with self._database.begin() as session:
                    await ResponseRepository(session).touch(list(self._held))
            except GatewayError as error:
                logger.warning("Can't hold responses in the background: %s", error.message)
