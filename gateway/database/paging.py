"""The part of a table that a page shows."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Order", "PageRequest", "page_rows"]

Order = Literal["asc", "desc"]


class PageRequest(Struct, frozen=True, kw_only=True):
    """Which part of a list: ``limit`` objects after (or before) the one with this id.

    ``order`` is by the time of making. With ``before`` the page ends just before that object and
    still reads in ``order``.
    """

    limit: int = 20
    order: Order = "desc"
    after: str | None = None
    before: str | None = None


async def page_rows(
    session: AsyncSession,
    statement: Select[Any],
    table: Any,
    page: PageRequest,
    *,
    cursor: Any,
    whole: Select[Any] | None = None,
) -> list[Any]:
    """Up to ``limit + 1`` rows of ``statement``, ordered by ``table.sequence`` and id.

    ``cursor`` is the column that callers name objects by. A cursor that isn't in the list is
    ignored, as LlamaStack does. Where ``statement`` is a list filtered by what changes, ``whole``
    is the unfiltered one: a cursor in it still marks its place once the filter passes it by.
    """
    descending = page.order == "desc"
    backwards = page.before is not None and page.after is None
    anchors = statement if whole is None else whole
    key = tuple_(table.sequence, table.id)
    for given, is_after in ((page.after, True), (page.before, False)):
        if given is None or "\x00" in given:  # which PostgreSQL can't even look for
            continue
        anchor = (
            await session.execute(
                anchors.with_only_columns(table.sequence, table.id).where(cursor == given)
            )
        ).first()
        if anchor is None:
            continue
        place = tuple_(anchor[0], anchor[1])
        later = is_after != descending
        statement = statement.where(key > place if later else key < place)
    ascending = descending if backwards else not descending
    columns = (table.sequence, table.id)
    statement = statement.order_by(
        *(column.asc() if ascending else column.desc() for column in columns)
    ).limit(page.limit + 1)
    rows = list((await session.execute(statement)).scalars())
    return rows[::-1] if backwards else rows
