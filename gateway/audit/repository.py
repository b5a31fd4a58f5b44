"""The table of the audit log."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import AuditRow

__all__ = ["AuditFilter", "AuditRepository"]

_FORGOTTEN_AT_ONCE = 5000
_MICROSECONDS = 1_000_000


class AuditFilter(Struct, frozen=True, kw_only=True):
    """``None`` is "any"; times are in seconds since the epoch, ``until`` isn't included."""

    project: str | None = None
    action: str | None = None
    object_id: str | None = None
    subject: str | None = None
    key_id: str | None = None
    since: int | None = None
    until: int | None = None


class AuditRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: AuditRow) -> None:
        self._session.add(row)

    async def page(self, chosen: AuditFilter, page: PageRequest) -> list[AuditRow]:
        """Up to ``limit + 1`` rows."""
        statement = select(AuditRow).where(*_conditions(chosen))
        return await page_rows(self._session, statement, AuditRow, page, cursor=AuditRow.id)

    async def forget(self, before: int) -> int:
        """What happened before this, a bounded number; how many."""
        old = (
            select(AuditRow.sequence)
            .where(AuditRow.sequence < before * _MICROSECONDS)
            .order_by(AuditRow.sequence)
            .limit(_FORGOTTEN_AT_ONCE)
            .subquery()
        )
        newest = (await self._session.execute(select(func.max(old.c.sequence)))).scalar()
        if newest is None:
            return 0
        done: Any = await self._session.execute(delete(AuditRow).where(AuditRow.sequence <= newest))
        return int(done.rowcount)


def _conditions(chosen: AuditFilter) -> list[ColumnElement[bool]]:
    found = [
        column == value
        for column, value in (
            (AuditRow.project, chosen.project),
            (AuditRow.action, chosen.action),
            (AuditRow.object_id, chosen.object_id),
            (AuditRow.subject, chosen.subject),
            (AuditRow.key_id, chosen.key_id),
        )
        if value is not None
    ]
    if chosen.since is not None:
        found.append(AuditRow.sequence >= chosen.since * _MICROSECONDS)
    if chosen.until is not None:
        found.append(AuditRow.sequence < chosen.until * _MICROSECONDS)
    return found
