"""Writing completions while their callers wait for the last bytes: many at once, within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from gateway.audit.entry import audit_row
from gateway.audit.repository import AuditRepository
from gateway.beside import beside
from gateway.database.engine import Database
from gateway.errors import UpstreamUnavailable
from gateway.identity.principal import Principal
from gateway.observability.metrics import Metrics
from gateway.stored_completions.repository import StoredCompletionRepository

if TYPE_CHECKING:
    from gateway.database.tables import AuditRow

__all__ = ["CompletionWriter", "FinishedCompletion", "Origin"]

logger = logging.getLogger(__name__)

HOLD_SECONDS = 2.0
"""How long an answer may be held back; the writing goes on behind it."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
_AT_ONCE = 64
_DRAIN_SECONDS = 5.0


class Origin(Struct, frozen=True, kw_only=True):
    """Where a request came from, for the audit log."""

    path: str | None = None
    request_id: str | None = None
    address: str | None = None


class FinishedCompletion(Struct, frozen=True, kw_only=True):
    """What is kept of one answer. ``size`` is about its bytes."""

    principal: Principal
    origin: Origin = Origin()
    model: str
    completion: dict[str, Any]
    messages: list[Any]
    metadata: dict[str, str]
    size: int

    @property
    def project(self) -> str:
        return self.principal.project


class CompletionWriter:
    """One task that writes what waits in one transaction.

    Whatever happens to the database, callers get their answers: ``keep`` returns within
    ``HOLD_SECONDS``, at once while writing fails, and what can't wait in memory is dropped. What
    fails is not tried again. Each outcome is counted.
    """

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._waiting: deque[tuple[FinishedCompletion, asyncio.Future[bool], float]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._failing = False

    async def keep(self, finished: FinishedCompletion) -> None:
        """Returns when it is in the database, or is not going to be in time."""
        if self._bytes + finished.size > MAX_WAITING_BYTES:
            self.count("dropped")
            return
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((finished, written, perf_counter()))
        self._bytes += finished.size
        self._arrived.set()
        if not self._failing:
            # Neither the time limit nor a caller who leaves keeps it from being written.
            await asyncio.wait([written], timeout=HOLD_SECONDS)
            self._failing = self._failing or not written.done()

    def count(self, outcome: str, seconds: float = 0.0) -> None:
        """What became of an answer that was to be kept, and how long that took."""
        self._metrics.completion_stored(outcome, seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which completions are written; what waits at the end still is."""
        async with beside(self._run(), "stored-completions"):
            try:
                yield
            finally:
                deadline = perf_counter() + _DRAIN_SECONDS
                while self._waiting and not self._failing and perf_counter() < deadline:
                    await asyncio.wait([self._waiting[0][1]], timeout=deadline - perf_counter())

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            batch = list(islice(self._waiting, _AT_ONCE))
            try:
                done = await self._write([finished for finished, *_ in batch])
            except Exception:  # a fault of ours must not end the writing for good
                logger.exception("Chat completions were not stored")
                done = [False] * len(batch)
            for (finished, written, began), stored in zip(batch, done, strict=True):
                self._waiting.popleft()
                self._bytes -= finished.size
                self.count("stored" if stored else "failed", perf_counter() - began)
                written.set_result(stored)
            if not self._waiting:
                self._arrived.clear()

    async def _write(self, batch: Sequence[FinishedCompletion]) -> list[bool]:
        """Write them together, or where one of them won't go in, one by one; which are written."""
        try:
            async with self._database.begin() as session:
                await StoredCompletionRepository(session).add(batch)
                log = AuditRepository(session)
                for finished in batch:
                    log.add(_audit_row(finished))
        except UpstreamUnavailable as error:
            self._failing = True
            logger.warning("%d chat completions were not stored: %s", len(batch), error.message)
            return [False] * len(batch)
        except SQLAlchemyError as error:
            if len(batch) > 1:
                return [(await self._write([finished]))[0] for finished in batch]
            cause = type(error).__name__
            logger.warning("A chat completion was not stored: the database says %s", cause)
            return [False]
        self._failing = False
        return [True] * len(batch)


def _audit_row(finished: FinishedCompletion) -> AuditRow:
    """What is kept leaves an entry in the same transaction."""
    origin = finished.origin
    return audit_row(
        finished.principal,
        "createChatCompletion",
        status=200,
        object_id=finished.completion["id"],
        method="POST",
        path=origin.path,
        request_id=origin.request_id,
        address=origin.address,
    )
