"""Prompts and their versions in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import PromptRow, PromptVersionRow

__all__ = ["PromptRepository"]


class PromptRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: PromptRow | PromptVersionRow) -> None:
        self._session.add(row)

    async def find(self, project: str, prompt_id: str, *, hold: bool = False) -> PromptRow | None:
        """``hold`` keeps others from changing or deleting it until the transaction ends."""
        statement = select(PromptRow).where(PromptRow.project == project, PromptRow.id == prompt_id)
        if hold:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def version(self, project: str, prompt_id: str, version: int) -> PromptVersionRow | None:
        found = await self._session.execute(
            select(PromptVersionRow).where(
                PromptVersionRow.project == project,
                PromptVersionRow.prompt_id == prompt_id,
                PromptVersionRow.version == version,
            )
        )
        return found.scalar_one_or_none()

    async def versions(self, project: str, prompt_id: str) -> list[PromptVersionRow]:
        """All of a prompt, the first one first."""
        found = await self._session.execute(
            select(PromptVersionRow)
            .where(PromptVersionRow.project == project, PromptVersionRow.prompt_id == prompt_id)
            .order_by(PromptVersionRow.version)
        )
        return list(found.scalars())

    async def defaults(self, project: str) -> list[PromptVersionRow]:
        """The default version of each prompt, the newest prompt first."""
        found = await self._session.execute(
            select(PromptVersionRow)
            .join(
                PromptRow,
                (PromptRow.id == PromptVersionRow.prompt_id)
                & (PromptRow.default_version == PromptVersionRow.version),
            )
            .where(PromptRow.project == project, PromptVersionRow.project == project)
            .order_by(PromptRow.sequence.desc(), PromptRow.id.desc())
        )
        return list(found.scalars())

    async def kept(self, project: str) -> tuple[int, int]:
        """How many versions of prompts the project has, and the characters of all of them."""
        columns: Any = (func.count(), func.sum(func.length(PromptVersionRow.prompt)))
        found = await self._session.execute(
            select(*columns).where(PromptVersionRow.project == project)
        )
        count, characters = found.one()
        return int(count), int(characters or 0)

    async def delete(self, project: str, prompt_id: str) -> bool:
        """With all its versions, for good; whether it was there."""
        done = await self._session.execute(
            delete(PromptRow)  # its versions go with it
            .where(PromptRow.project == project, PromptRow.id == prompt_id)
            .returning(PromptRow.id)
        )
        return done.first() is not None
