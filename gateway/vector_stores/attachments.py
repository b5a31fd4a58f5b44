"""Files in vector stores, in the database. A file in a store is an attachment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import now
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import (
    AttributeRow,
    FileBatchFileRow,
    FileRow,
    VectorStoreFileRow,
)
from gateway.files.repository import FileRepository
from gateway.vector_stores.properties import AttributeValue
from gateway.vector_stores.schemas import FileStatus

__all__ = ["AttachmentRepository"]

IDS_IN_ONE_QUERY = 1000
"""Databases take tens of thousands of parameters at most."""


class AttachmentRepository:
    """Every method works within the caller's transaction, in one project."""

    async def get(
        self,
        session: AsyncSession,
        project: str,
        store_id: str,
        file_id: str,
        *,
        lock: bool = False,
    ) -> VectorStoreFileRow | None:
        """The file's place in this store; ``None`` where it has none."""
        if "\x00" in file_id:  # which PostgreSQL can't even look for
            return None
        statement = self._files(project, store_id).where(VectorStoreFileRow.file_id == file_id)
        if lock:
            statement = statement.with_for_update(key_share=True)
        return (await session.execute(statement)).scalar_one_or_none()

    async def by_id(
        self, session: AsyncSession, project: str, attachment_id: str
    ) -> VectorStoreFileRow | None:
        """``None`` where it is gone."""
        files = VectorStoreFileRow
        statement = select(files).where(
            files.project == project, files.id == attachment_id, files.deleted_at.is_(None)
        )
        return (await session.execute(statement)).scalar_one_or_none()

    async def of_files(
        self, session: AsyncSession, project: str, store_id: str, file_ids: Sequence[str]
    ) -> dict[str, VectorStoreFileRow]:
        """Those of these files that are in the store, by file id, locked."""
        found: dict[str, VectorStoreFileRow] = {}
        for some in _portions([one for one in file_ids if "\x00" not in one]):
            statement = (
                self._files(project, store_id)
                .where(VectorStoreFileRow.file_id.in_(some))
                .order_by(VectorStoreFileRow.id)
                .with_for_update(key_share=True)
            )
            for row in (await session.execute(statement)).scalars():
                assert row.file_id is not None  # it was looked up by it
                found[row.file_id] = row
        return found

    async def statuses(
        self, session: AsyncSession, project: str, attachment_ids: Sequence[str]
    ) -> set[str]:
        """The states that these are in; those that are gone are in none."""
        files, states = VectorStoreFileRow, set[str]()
        for some in _portions(attachment_ids):
            statement = (
                select(files.status)
                .where(files.project == project, files.id.in_(some), files.deleted_at.is_(None))
                .distinct()
            )
            states.update((await session.execute(statement)).scalars())
        return states

    async def page(
        self,
        session: AsyncSession,
        project: str,
        store_id: str,
        page: PageRequest,
        *,
        status: FileStatus | None = None,
        batch_id: str | None = None,
    ) -> list[VectorStoreFileRow]:
        """Up to ``limit + 1`` files of the store, or of one of its batches."""
        whole = self._files(project, store_id)
        if batch_id is not None:
            whole = whole.join(
                FileBatchFileRow, FileBatchFileRow.attachment_id == VectorStoreFileRow.id
            ).where(FileBatchFileRow.batch_id == batch_id)
        shown = whole if status is None else whole.where(VectorStoreFileRow.status == status)
        return await page_rows(
            session,
            shown,
            VectorStoreFileRow,
            page,
            cursor=VectorStoreFileRow.file_id,
            whole=whole,
        )

    async def uploaded(
        self, session: AsyncSession, project: str, file_ids: Collection[str]
    ) -> dict[str, FileRow]:
        """Those of these files that exist, kept from being deleted until the transaction ends."""
        found: dict[str, FileRow] = {}
        for some in _portions(sorted(one for one in file_ids if "\x00" not in one)):
            found |= await FileRepository(session).find_all(project, some, hold=True)
        return found

    async def add(self, session: AsyncSession, rows: Sequence[VectorStoreFileRow]) -> None:
        """New ones, with their attributes in the form that filters compare."""
        session.add_all(rows)
        await session.flush()
        session.add_all(
            attribute for row in rows for attribute in _attribute_rows(row, row.attributes)
        )
        await session.flush()

    async def set_attributes(
        self,
        session: AsyncSession,
        row: VectorStoreFileRow,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        """These and no others, from the commit on. The row is locked by the caller."""
        await self.set_attributes_of_many(session, [(row, attributes)])

    async def set_attributes_of_many(
        self,
        session: AsyncSession,
        wanted: Sequence[tuple[VectorStoreFileRow, Mapping[str, AttributeValue]]],
    ) -> None:
        """The same for several rows at once."""
        changed = [(row, given) for row, given in wanted if not _same(row.attributes, given)]
        for some in _portions([row.id for row, _ in changed]):
            await session.execute(delete(AttributeRow).where(AttributeRow.attachment_id.in_(some)))
        for row, attributes in changed:
            row.attributes = dict(attributes)
            session.add_all(_attribute_rows(row, attributes))
        if changed:
            await session.flush()

    async def cancel(
        self, session: AsyncSession, project: str, attachment_ids: Sequence[str]
    ) -> None:
        """Those of these that are still in work are cancelled."""
        files = VectorStoreFileRow
        for some in _portions(attachment_ids):
            await session.execute(
                update(files)
                .where(
                    files.project == project,
                    files.id.in_(some),
                    files.status == "in_progress",
                    files.deleted_at.is_(None),
                )
                .values(status="cancelled", finished_at=now())
                .execution_options(synchronize_session=False)
            )

    def _files(self, project: str, store_id: str) -> Select[VectorStoreFileRow]:
        """Ready-made chunks are in the store without a file, and no list shows them."""
        files = VectorStoreFileRow
        return select(files).where(
            files.project == project,
            files.store_id == store_id,
            files.file_id.is_not(None),
            files.deleted_at.is_(None),
        )


def _attribute_rows(
    row: VectorStoreFileRow, attributes: Mapping[str, AttributeValue]
) -> list[AttributeRow]:
    made = []
    for key, value in attributes.items():
        one = AttributeRow(attachment_id=row.id, key=key, store_id=row.store_id)
        if isinstance(value, bool):
            one.boolean = value
        elif isinstance(value, str):
            one.text = value
        else:
            one.number = float(value)
        made.append(one)
    return made


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal in value and in kind: ``1``, ``1.0`` and ``true`` are three things."""
    return one == other and all(type(one[key]) is type(other[key]) for key in one)


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + IDS_IN_ONE_QUERY] for at in range(0, len(ids), IDS_IN_ONE_QUERY)]
