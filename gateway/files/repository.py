"""Files in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import now
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import FileRow, VectorStoreFileRow

__all__ = ["FileRepository"]


class FileRepository:
    """Reads and writes in one transaction, the caller's.

    A file that is deleted, or whose time is over, is seen by nobody, even before a job has removed
    it.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: FileRow) -> None:
        """Only once its content is in the object store."""
        self._session.add(row)

    async def find(self, project: str, file_id: str, *, hold: bool = False) -> FileRow | None:
        """``hold`` keeps it from being deleted until the transaction ends, so that something can
        be attached to it.
        """
        statement = select(FileRow).where(
            FileRow.project == project, FileRow.id == file_id, *_seen()
        )
        if hold:
            statement = statement.with_for_update(read=True)
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def find_all(
        self, project: str, file_ids: Sequence[str], *, hold: bool = False
    ) -> dict[str, FileRow]:
        """Those of these files that are there, by id."""
        statement = (
            select(FileRow)
            .where(FileRow.project == project, FileRow.id.in_(file_ids), *_seen())
            .order_by(FileRow.id)  # locks are taken in one order
        )
        if hold:
            statement = statement.with_for_update(read=True)
        return {row.id: row for row in (await self._session.execute(statement)).scalars()}

    async def page(self, project: str, purpose: str | None, page: PageRequest) -> list[FileRow]:
        whole = select(FileRow).where(FileRow.project == project)
        shown = whole.where(*_seen())
        if purpose is not None:
            shown = shown.where(FileRow.purpose == purpose)
        return await page_rows(self._session, shown, FileRow, page, cursor=FileRow.id, whole=whole)

    async def tombstone(self, project: str, file_id: str) -> bool:
        """Take the file, and with it its place in every vector store, out of sight for good.

        False where another transaction was first.
        """
        moment = now()
        done = await self._session.execute(
            update(FileRow)
            .where(FileRow.project == project, FileRow.id == file_id, FileRow.deleted_at.is_(None))
            .values(deleted_at=moment)
            .returning(FileRow.id)
        )
        if done.first() is None:
            return False
        await self._session.execute(
            update(VectorStoreFileRow)
            .where(
                VectorStoreFileRow.project == project,
                VectorStoreFileRow.file_id == file_id,
                VectorStoreFileRow.deleted_at.is_(None),
            )
            .values(deleted_at=moment)
        )
        return True

    # For the reaper, which serves all projects.

    async def expired(self, limit: int) -> list[tuple[str, str]]:
        """Project and id of files whose time is over and that nobody has deleted yet."""
        found = await self._session.execute(
            select(FileRow.project, FileRow.id)
            .where(FileRow.expires_at <= now(), FileRow.deleted_at.is_(None))
            .order_by(FileRow.expires_at)
            .limit(limit)
        )
        return [(project, file_id) for project, file_id in found]

    async def known(self, file_ids: Iterable[str]) -> set[str]:
        """Those of these ids that have a row, tombstones too: objects under other ids belong to
        nobody, once they are older than any upload in progress.
        """
        found = await self._session.execute(select(FileRow.id).where(FileRow.id.in_([*file_ids])))
        return set(found.scalars())


def _seen() -> tuple[ColumnElement[bool], ...]:
    return (
        FileRow.deleted_at.is_(None),
        FileRow.expires_at.is_(None) | (FileRow.expires_at > now()),
    )
