"""The table of usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import UsageRow

__all__ = ["GROUPS", "Amounts", "UsageFilter", "UsageKey", "UsageRepository", "UsageSum"]

UsageKey = tuple[int, str, str, str, str]
"""Hour, project, key id (or nothing), model, operation: the table's primary key."""

_KEY = ("hour", "project", "key_id", "model", "operation")
_WRITTEN_AT_ONCE = 500
_FORGOTTEN_AT_ONCE = 5000

GROUPS = {
    "project_id": UsageRow.project,
    "api_key_id": UsageRow.key_id,
    "model": UsageRow.model,
    "operation": UsageRow.operation,
}
"""What usage can be told apart by, in OpenAI's words."""


class Amounts(Struct):
    """What was used."""

    requests: int = 0
    errors: int = 0
    estimated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def add(self, other: Amounts) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_AMOUNTS = Amounts.__struct_fields__


class UsageFilter(Struct, frozen=True, kw_only=True):
    """``None`` is "all of them"."""

    projects: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    models: Sequence[str] | None = None


class UsageSum(Struct, frozen=True):
    """Of one bucket and one group."""

    start: int
    group: tuple[str, ...]
    amounts: Amounts


class UsageRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, noted: Mapping[UsageKey, Amounts]) -> None:
        """Add to what is there; in the order of the keys, as every process does."""
        on_postgresql = self._session.get_bind().dialect.name == "postgresql"
        insert: Any = postgresql.insert if on_postgresql else sqlite.insert
        statement = insert(UsageRow)
        statement = statement.on_conflict_do_update(
            index_elements=list(_KEY),
            set_={
                name: getattr(UsageRow, name) + getattr(statement.excluded, name)
                for name in _AMOUNTS
            },
        )
        rows = [
            dict(zip(_KEY, key, strict=True)) | msgspec.structs.asdict(amounts)
            for key, amounts in sorted(noted.items(), key=lambda one: one[0])
        ]
        for first in range(0, len(rows), _WRITTEN_AT_ONCE):
            await self._session.execute(statement.values(rows[first : first + _WRITTEN_AT_ONCE]))

    async def sums(
        self,
        start: int,
        end: int,
        width: int,
        group_by: Sequence[str],
        chosen: UsageFilter,
        limit: int | None,
    ) -> list[UsageSum]:
        """Of buckets of ``width`` seconds in their order, empty ones left out."""
        bucket = (UsageRow.hour - UsageRow.hour % width).label("bucket")
        groups = [GROUPS[name] for name in group_by]
        sums = [func.sum(getattr(UsageRow, name)) for name in _AMOUNTS]
        statement = (
            select(bucket, *groups, *sums)
            .where(UsageRow.hour >= start, UsageRow.hour < end, *_conditions(chosen))
            .group_by(bucket, *groups)
            .order_by(bucket, *groups)
            .limit(limit)
        )
        middle = 1 + len(groups)
        return [
            UsageSum(row[0], tuple(map(str, row[1:middle])), Amounts(*map(int, row[middle:])))
            for row in await self._session.execute(statement)
        ]

    async def span(self, chosen: UsageFilter) -> tuple[int, int] | None:
        """The first and the last hour with usage in it."""
        found = select(func.min(UsageRow.hour), func.max(UsageRow.hour)).where(*_conditions(chosen))
        first, last = (await self._session.execute(found)).one()
        return None if first is None else (int(first), int(last))

    async def forget(self, before: int) -> int:
        """Usage of hours before this; a bounded number of rows, and how many."""
        old = (
            select(UsageRow.hour)
            .where(UsageRow.hour < before)
            .order_by(UsageRow.hour)
            .limit(_FORGOTTEN_AT_ONCE)
        )
        newest = (await self._session.execute(select(func.max(old.subquery().c.hour)))).scalar()
        if newest is None:
            return 0
        done: Any = await self._session.execute(delete(UsageRow).where(UsageRow.hour <= newest))
        return int(done.rowcount)


def _conditions(chosen: UsageFilter) -> list[ColumnElement[bool]]:
    return [
        column.in_(names)
        for column, names in (
            (UsageRow.project, chosen.projects),
            (UsageRow.key_id, chosen.keys),
            (UsageRow.model, chosen.models),
        )
        if names is not None
    ]
