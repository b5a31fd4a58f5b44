"""Conversations and their items in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import sequence
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import ConversationItemRow, ConversationRow
from gateway.errors import InvalidRequest

__all__ = ["MAX_ITEMS", "ConversationRepository"]

MAX_ITEMS = 10_000
"""Of one conversation."""


class ConversationRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: ConversationRow) -> None:
        self._session.add(row)

    async def find(
        self, project: str, conversation_id: str, *, hold: bool = False
    ) -> ConversationRow | None:
        """``hold`` keeps others from changing or deleting it until the transaction ends."""
        statement = select(ConversationRow).where(
            ConversationRow.project == project, ConversationRow.id == conversation_id
        )
        if hold:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def exists(self, project: str, conversation_id: str) -> bool:
        if "\x00" in conversation_id:  # which PostgreSQL can't even look for
            return False
        return await self.find(project, conversation_id) is not None

    async def delete(self, project: str, conversation_id: str) -> bool:
        """With all its items, for good; whether it was there."""
        done = await self._session.execute(
            delete(ConversationRow)  # its items go with it
            .where(ConversationRow.project == project, ConversationRow.id == conversation_id)
            .returning(ConversationRow.id)
        )
        return done.first() is not None

    async def count(self, project: str, conversation_id: str) -> int:
        """How many items it has."""
        statement = _items(project, conversation_id).with_only_columns(func.count())
        return int((await self._session.execute(statement)).scalar_one())

    async def page(
        self, project: str, conversation_id: str, page: PageRequest
    ) -> list[ConversationItemRow]:
        statement = _items(project, conversation_id)
        return await page_rows(
            self._session, statement, ConversationItemRow, page, cursor=ConversationItemRow.id
        )

    async def items(self, project: str, conversation_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest ones, up to ``limit``, oldest first."""
        page = PageRequest(limit=limit, order="desc")
        rows = (await self.page(project, conversation_id, page))[:limit]
        return [row.body for row in reversed(rows)]

    async def append(
        self, project: str, conversation_id: str, items: Sequence[dict[str, Any]]
    ) -> bool:
        """Add items at the end; one whose id is there already takes that one's place.

        False where there is no such conversation (any more). Raises ``InvalidRequest`` where it
        would hold more than ``MAX_ITEMS``.
        """
        if await self.find(project, conversation_id, hold=True) is None:
            return False
        there = {
            row.id: row
            for row in await self._rows(project, conversation_id, [one["id"] for one in items])
        }
        new = {item["id"]: item for item in items if item["id"] not in there}
        if len(new) + await self.count(project, conversation_id) > MAX_ITEMS:
            raise InvalidRequest(
                f"The conversation '{conversation_id}' can't hold more than {MAX_ITEMS} items.",
                param="items",
                code="conversation_full",
            )
        for item in items:
            if item["id"] in there:
                there[item["id"]].body = item
        for item_id, item in new.items():
            self._session.add(
                ConversationItemRow(
                    conversation_id=conversation_id,
                    id=item_id,
                    project=project,
                    sequence=sequence(),
                    body=item,
                )
            )
        return True

    async def present(self, project: str, conversation_id: str, ids: Sequence[str]) -> set[str]:
        """Those of these ids that the conversation has."""
        return {row.id for row in await self._rows(project, conversation_id, ids)}

    async def item(self, project: str, conversation_id: str, item_id: str) -> dict[str, Any] | None:
        rows = await self._rows(project, conversation_id, [item_id])
        return rows[0].body if rows else None

    async def find_item(self, project: str, item_id: str) -> dict[str, Any] | None:
        """An item of any conversation of the project; the newest where there are copies."""
        if "\x00" in item_id:
            return None
        found = await self._session.execute(
            select(ConversationItemRow.body)
            .where(ConversationItemRow.project == project, ConversationItemRow.id == item_id)
            .order_by(ConversationItemRow.sequence.desc())
            .limit(1)
        )
        body: dict[str, Any] | None = found.scalar_one_or_none()
        return body

    async def delete_item(self, project: str, conversation_id: str, item_id: str) -> bool:
        """For good; whether it was there."""
        if "\x00" in item_id:
            return False
        done = await self._session.execute(
            delete(ConversationItemRow)
            .where(
                ConversationItemRow.project == project,
                ConversationItemRow.conversation_id == conversation_id,
                ConversationItemRow.id == item_id,
            )
            .returning(ConversationItemRow.id)
        )
        return done.first() is not None

    async def _rows(
        self, project: str, conversation_id: str, ids: Sequence[str]
    ) -> list[ConversationItemRow]:
        known = [one for one in ids if "\x00" not in one]
        statement = _items(project, conversation_id).where(ConversationItemRow.id.in_(known))
        return list((await self._session.execute(statement)).scalars())


def _items(project: str, conversation_id: str) -> Select[Any]:
    return select(ConversationItemRow).where(
        ConversationItemRow.project == project,
        ConversationItemRow.conversation_id == conversation_id,
    )
