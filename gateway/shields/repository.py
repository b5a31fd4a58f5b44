"""Registered shields in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import ShieldRow

__all__ = ["ShieldRepository"]


class ShieldRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(self, row: ShieldRow) -> None:
        """In place of the one with this id, if there is one."""
        sqlite = self._session.get_bind().dialect.name == "sqlite"
        insert = sqlite_insert if sqlite else postgresql_insert
        values = {
            "provider_id": row.provider_id,
            "provider_resource_id": row.provider_resource_id,
            "params": row.params,
        }
        statement = insert(ShieldRow).values(
            project=row.project, id=row.id, sequence=row.sequence, **values
        )
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["project", "id"], set_=values)
        )

    async def find(self, project: str, identifier: str) -> ShieldRow | None:
        if "\x00" in identifier:  # which PostgreSQL can't even look for
            return None
        return await self._session.get(ShieldRow, (project, identifier))

    async def find_all(self, project: str, identifiers: Sequence[str]) -> dict[str, ShieldRow]:
        """Those of these that are there, by id."""
        known = [one for one in identifiers if "\x00" not in one]
        statement = select(ShieldRow).where(ShieldRow.project == project, ShieldRow.id.in_(known))
        return {row.id: row for row in (await self._session.execute(statement)).scalars()}

    async def all(self, project: str, most: int) -> Sequence[ShieldRow]:
        """In the order in which they were registered."""
        statement = (
            select(ShieldRow)
            .where(ShieldRow.project == project)
            .order_by(ShieldRow.sequence)
            .limit(most)
        )
        return (await self._session.execute(statement)).scalars().all()

    async def count(self, project: str) -> int:
        statement = select(func.count()).where(ShieldRow.project == project)
        return (await self._session.execute(statement)).scalar_one()

    async def delete(self, project: str, identifier: str) -> bool:
        """False where there is none."""
        if "\x00" in identifier:
            return False
        gone = await self._session.execute(
            delete(ShieldRow)
            .where(ShieldRow.project == project, ShieldRow.id == identifier)
            .returning(ShieldRow.id)
        )
        return gone.scalar_one_or_none() is not None
