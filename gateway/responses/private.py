"""Requests that hold a caller's secrets, and the process that alone can do them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway.database.engine import Database
from gateway.errors import GatewayError
from gateway.ports import Handler, JobQueue
from gateway.responses.repository import ResponseRepository

__all__ = ["PrivateRequests"]

logger = logging.getLogger(__name__)

TOUCH_SECONDS = 10.0


class PrivateRequests:
    """In memory only, by the response's id: a token of a caller's is never stored.

    Their jobs are of a kind that no other process takes. When this one ends nobody touches their
    rows any more, and the reaper finds them.
    """

    def __init__(self, database: Database, queue: JobQueue, *, at_once: int) -> None:
        self._database = database
        self._queue = queue
        self._at_once = at_once
        self._held: dict[str, dict[str, Any]] = {}
        self.kind = f"run_response_{uuid.uuid4().hex[:16]}"

    def hold(self, response_id: str, body: Mapping[str, Any]) -> None:
        self._held[response_id] = dict(body)

    def get(self, response_id: str) -> dict[str, Any] | None:
        return self._held.get(response_id)

    def forget(self, response_id: str) -> None:
        self._held.pop(response_id, None)

    @asynccontextmanager
    async def worked_on(self, handler: Handler) -> AsyncIterator[None]:
        """The time in which their jobs are done and their rows are touched."""
        work = self._queue.work({self.kind: handler}, concurrency=self._at_once)
        tasks = [
            asyncio.create_task(work, name="private responses"),
            asyncio.create_task(self._touch(), name="hold private responses"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

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
