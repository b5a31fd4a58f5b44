"""Batches as callers see them, in the database."""

from __future__ import annotations

from sqlalchemy import delete, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.batches.schemas import OVER
from gateway.database.identifiers import now
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import BatchLineRow, BatchRow

__all__ = ["BatchRepository"]


class BatchRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: BatchRow) -> None:
        self._session.add(row)

    async def find(self, project: str, batch_id: str, *, lock: bool = False) -> BatchRow | None:
        """``lock`` keeps others from changing it until the transaction ends."""
        statement = select(BatchRow).where(BatchRow.project == project, BatchRow.id == batch_id)
        if lock:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def find_by_key(self, project: str, key: str) -> BatchRow | None:
        found = await self._session.execute(
            select(BatchRow).where(BatchRow.project == project, BatchRow.idempotency_key == key)
        )
        return found.scalar_one_or_none()

    async def page(self, project: str, page: PageRequest) -> list[BatchRow]:
        shown = select(BatchRow).where(BatchRow.project == project)
        return await page_rows(self._session, shown, BatchRow, page, cursor=BatchRow.id)

    # For the reaper, which serves all projects.

    async def forgotten(self, seconds: int, limit: int) -> list[BatchRow]:
        """Batches that aren't over and that no worker has touched for so long; touched now."""
        found = await self._session.execute(
            select(BatchRow)
            .where(BatchRow.status.not_in(OVER), BatchRow.touched_at < now() - seconds)
            .order_by(BatchRow.touched_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = list(found.scalars())
        await self._session.execute(
            update(BatchRow)
            .where(BatchRow.id.in_([row.id for row in rows]))
            .values(touched_at=now())
            .execution_options(synchronize_session=False)
        )
        return rows

    async def remove_leftover_lines(self, limit: int) -> int:
        """Lines of batches that are over, whose files hold them; how many."""
        over = exists().where(BatchRow.id == BatchLineRow.batch_id, BatchRow.status.in_(OVER))
        some = select(BatchLineRow.batch_id, BatchLineRow.position).where(over).limit(limit)
        keys = [tuple(row) for row in (await self._session.execute(some)).all()]
        if keys:
            await self._session.execute(
                delete(BatchLineRow)
                .where(tuple_(BatchLineRow.batch_id, BatchLineRow.position).in_(keys))
                .execution_options(synchronize_session=False)
            )
        return len(keys)
