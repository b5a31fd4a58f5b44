"""API keys in the database."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import ApiKeyRow

__all__ = ["ApiKeyRepository"]


class ApiKeyRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: ApiKeyRow) -> None:
        self._session.add(row)

    async def find(self, digest: str) -> ApiKeyRow | None:
        """The key whose secret, or whose secret before the last rotation, has this digest."""
        found = await self._session.execute(
            select(ApiKeyRow).where(
                or_(ApiKeyRow.digest == digest, ApiKeyRow.previous_digest == digest)
            )
        )
        return found.scalars().first()

    async def named(self, name: str) -> list[ApiKeyRow]:
        """The key with this id, or those with this prefix; held until the transaction ends."""
        found = await self._session.execute(
            select(ApiKeyRow)
            .where(or_(ApiKeyRow.id == name, ApiKeyRow.prefix == name))
            .with_for_update()
        )
        return list(found.scalars())

    async def list(self, project: str | None) -> list[ApiKeyRow]:
        """Of one project or of all, the oldest first."""
        statement = select(ApiKeyRow).order_by(ApiKeyRow.sequence, ApiKeyRow.id)
        if project is not None:
            statement = statement.where(ApiKeyRow.project == project)
        return list((await self._session.execute(statement)).scalars())

    async def note_use(self, ids: Iterable[str], when: int) -> None:
        """They were used about then."""
        await self._session.execute(
            update(ApiKeyRow).where(ApiKeyRow.id.in_(list(ids))).values(last_used_at=when)
        )
