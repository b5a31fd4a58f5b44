"""Stored chat completions in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from gateway.database.identifiers import sequence
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import ChatCompletionMetadataRow, ChatCompletionRow

if TYPE_CHECKING:
    from gateway.stored_completions.writer import FinishedCompletion

__all__ = ["StoredCompletionRepository"]


class StoredCompletionRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, batch: Sequence[FinishedCompletion]) -> None:
        rows = [
            ChatCompletionRow(
                id=finished.completion["id"],
                project=finished.project,
                sequence=sequence(),
                model=finished.model,
                completion=finished.completion,
                messages=finished.messages,
                metadata_=finished.metadata,
                bytes=finished.size,
            )
            for finished in batch
        ]
        self._session.add_all(rows)
        await self._session.flush()
        for row in rows:
            self._add_pairs(row)

    async def find(
        self, project: str, completion_id: str, *, hold: bool = False
    ) -> ChatCompletionRow | None:
        """``hold`` keeps others from changing or deleting it until the transaction ends."""
        if "\x00" in completion_id:  # which PostgreSQL can't even look for
            return None
        statement = select(ChatCompletionRow).where(
            ChatCompletionRow.project == project, ChatCompletionRow.id == completion_id
        )
        if hold:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def page(
        self, project: str, model: str | None, metadata: Mapping[str, str], page: PageRequest
    ) -> list[ChatCompletionRow]:
        """Rows that have only ``id``, ``sequence`` and ``bytes``; one more than asked for where
        there is one.
        """
        whole = select(ChatCompletionRow).where(ChatCompletionRow.project == project)
        statement = whole
        if model is not None:
            statement = statement.where(ChatCompletionRow.model == model)
        for key, value in metadata.items():
            pair = select(ChatCompletionMetadataRow.completion_id).where(
                ChatCompletionMetadataRow.completion_id == ChatCompletionRow.id,
                ChatCompletionMetadataRow.key == key,
                ChatCompletionMetadataRow.value == value,
            )
            statement = statement.where(pair.exists())
        statement = statement.options(
            load_only(ChatCompletionRow.sequence, ChatCompletionRow.bytes, raiseload=True)
        )
        return await page_rows(
            self._session,
            statement,
            ChatCompletionRow,
            page,
            cursor=ChatCompletionRow.id,
            whole=whole,
        )

    async def find_all(self, project: str, ids: Sequence[str]) -> dict[str, ChatCompletionRow]:
        """Those of these completions that are there, whole, by id."""
        found = await self._session.execute(
            select(ChatCompletionRow)
            .where(ChatCompletionRow.project == project, ChatCompletionRow.id.in_(ids))
            .execution_options(populate_existing=True)
        )
        return {row.id: row for row in found.scalars()}

    async def set_metadata(self, row: ChatCompletionRow, metadata: dict[str, str]) -> None:
        """In place of what it had."""
        row.metadata_ = metadata
        await self._session.execute(
            delete(ChatCompletionMetadataRow).where(
                ChatCompletionMetadataRow.completion_id == row.id
            )
        )
        self._add_pairs(row)

    async def delete(self, project: str, completion_id: str) -> bool:
        """For good; whether it was there."""
        if "\x00" in completion_id:
            return False
        done = await self._session.execute(
            delete(ChatCompletionRow)  # its metadata goes with it
            .where(ChatCompletionRow.project == project, ChatCompletionRow.id == completion_id)
            .returning(ChatCompletionRow.id)
        )
        return done.first() is not None

    # For the reaper, which serves all projects.

    async def delete_older(self, moment: int, limit: int) -> int:
        """Those that were stored before this ``sequence``, the oldest first; how many."""
        due = (
            select(ChatCompletionRow.id)
            .where(ChatCompletionRow.sequence < moment)
            .order_by(ChatCompletionRow.sequence)
            .limit(limit)
        )
        done = await self._session.execute(
            delete(ChatCompletionRow)
            .where(ChatCompletionRow.id.in_(due))
            .returning(ChatCompletionRow.id)
        )
        return len(done.all())

    def _add_pairs(self, row: ChatCompletionRow) -> None:
        self._session.add_all(
            ChatCompletionMetadataRow(completion_id=row.id, key=key, value=value)
            for key, value in row.metadata_.items()
        )
