"""Batches of files, in the database. What is counted are the files' own rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import FileBatchFileRow, FileBatchRow, VectorStoreFileRow
from gateway.vector_stores.schemas import FileCounts

__all__ = ["FileBatchRepository"]


class FileBatchRepository:
    """Every method works within the caller's transaction, in one project."""

    async def add(
        self, session: AsyncSession, batch: FileBatchRow, attachment_ids: Sequence[str]
    ) -> None:
        session.add(batch)
        await session.flush()
        session.add_all(
            FileBatchFileRow(batch_id=batch.id, attachment_id=one) for one in attachment_ids
        )
        await session.flush()

    async def get(
        self, session: AsyncSession, project: str, store_id: str, batch_id: str
    ) -> FileBatchRow | None:
        if "\x00" in batch_id:  # which PostgreSQL can't even look for
            return None
        batch = FileBatchRow
        statement = select(batch).where(
            batch.project == project, batch.store_id == store_id, batch.id == batch_id
        )
        return (await session.execute(statement)).scalar_one_or_none()

    async def counts(self, session: AsyncSession, project: str, batch_id: str) -> FileCounts:
        """Of its files that are still in the store."""
        files, members = VectorStoreFileRow, FileBatchFileRow
        counted = await session.execute(
            select(files.status, func.count())
            .join(members, members.attachment_id == files.id)
            .where(
                files.project == project,
                members.batch_id == batch_id,
                files.deleted_at.is_(None),
            )
            .group_by(files.status)
        )
        by_status: dict[str, int] = {status: number for status, number in counted}  # noqa: C416
        return FileCounts(**by_status, total=sum(by_status.values()))

    async def in_work(self, session: AsyncSession, project: str, batch_id: str) -> list[str]:
        """The ids of its attachments that are in work and that no other batch waits for."""
        files, members = VectorStoreFileRow, FileBatchFileRow
        others = members.__table__.alias()
        wanted_elsewhere = exists().where(
            others.c.attachment_id == files.id,
            others.c.batch_id != batch_id,
            FileBatchRow.id == others.c.batch_id,
            FileBatchRow.cancelled_at.is_(None),
        )
        statement = (
            select(files.id)
            .join(members, members.attachment_id == files.id)
            .where(
                files.project == project,
                members.batch_id == batch_id,
                files.status == "in_progress",
                files.deleted_at.is_(None),
                ~wanted_elsewhere,
            )
        )
        return list((await session.execute(statement)).scalars())
