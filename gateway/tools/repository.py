"""Tool groups in the database."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import ToolGroupRow

__all__ = ["ToolGroupRepository"]


class ToolGroupRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, project: str, group_id: str) -> ToolGroupRow | None:
        found = await self._session.execute(
            select(ToolGroupRow).where(ToolGroupRow.project == project, ToolGroupRow.id == group_id)
        )
        row: ToolGroupRow | None = found.scalar_one_or_none()
        return row

    async def all(self, project: str) -> list[ToolGroupRow]:
        """In the order in which they were registered."""
        found = await self._session.execute(
            select(ToolGroupRow)
            .where(ToolGroupRow.project == project)
            .order_by(ToolGroupRow.sequence, ToolGroupRow.id)
        )
        return list(found.scalars())

    async def count(self, project: str) -> int:
        found = await self._session.execute(
            select(func.count()).select_from(ToolGroupRow).where(ToolGroupRow.project == project)
        )
        number: int = found.scalar_one()
        return number

    async def put(self, row: ToolGroupRow) -> None:
        """In place of the one with its id."""
        await self.remove(row.project, row.id)
        self._session.add(row)
        await self._session.flush()

    async def remove(self, project: str, group_id: str) -> bool:
        """False where there was none."""
        done = await self._session.execute(
            delete(ToolGroupRow)
            .where(ToolGroupRow.project == project, ToolGroupRow.id == group_id)
            .returning(ToolGroupRow.id)
        )
        return done.first() is not None
