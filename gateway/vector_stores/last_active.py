"""When a vector store was last used, by which it may expire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Update, case, or_, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.beside import beside
from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import VectorStoreRow
from gateway.errors import UpstreamError

__all__ = ["LastActive"]

logger = logging.getLogger(__name__)

RESOLUTION_SECONDS = 60
"""A store's time is written once in so long at most."""
_GATHER_SECONDS = 1.0
_MOST_REMEMBERED = 10_000
_DAY = 24 * 3600


class LastActive:
    """Notes uses at once and writes them a moment later, so that no search waits for a write.

    A use that is lost with the process costs a store a minute of its days.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[tuple[str, str], int] = {}
        self._written: dict[tuple[str, str], int] = {}
        self._any = asyncio.Event()

    def note(self, project: str, store_id: str) -> None:
        """This store is in use now."""
        key, time = (project, store_id), now()
        if time - self._written.get(key, 0) < RESOLUTION_SECONDS:
            return
        if len(self._written) >= _MOST_REMEMBERED:
            self._written.clear()
        self._written[key] = time
        self._noted[key] = time
        self._any.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write while the block runs, and what is left at its end."""
        try:
            async with beside(self._write_on(), "last-active"):
                yield
        finally:
            await self.write()

    async def write(self) -> None:
        """Write what was noted. Never raises: what fails is noted again with the next use."""
        noted, self._noted = self._noted, {}
        self._any.clear()
        if not noted:
            return
        try:
            async with self._database.begin() as session:
                for (project, store_id), time in sorted(noted.items()):
                    await session.execute(_used(project, store_id, time))
        except asyncio.CancelledError:
            self._noted = {**noted, **self._noted}
            raise
        except (UpstreamError, SQLAlchemyError, OSError) as error:
            for key in noted:
                self._written.pop(key, None)
            logger.warning("The use of vector stores could not be written down: %s", error)

    async def _write_on(self) -> None:
        while True:
            await self._any.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            await self.write()


def _used(project: str, store_id: str, time: int) -> Update:
    row = VectorStoreRow
    return (
        update(row)
        .where(
            row.id == store_id,
            row.project == project,
            row.deleted_at.is_(None),
            row.last_active_at < time,
            or_(row.expires_at.is_(None), row.expires_at > time),
        )
        .values(
            last_active_at=time,
            expires_at=case(
                (row.expires_after_days.is_not(None), time + row.expires_after_days * _DAY),
                else_=row.expires_at,
            ),
        )
    )
