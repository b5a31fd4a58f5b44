"""Uploads and their parts in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import now
from gateway.database.tables import UploadPartRow, UploadRow

__all__ = ["UploadRepository"]


class UploadRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: UploadRow) -> None:
        self._session.add(row)

    def add_part(self, row: UploadPartRow) -> None:
        """Only once its content is in the object store."""
        self._session.add(row)

    async def find(self, project: str, upload_id: str, *, hold: bool = False) -> UploadRow | None:
        """``hold`` keeps its state as it is until the transaction ends."""
        statement = select(UploadRow).where(UploadRow.project == project, UploadRow.id == upload_id)
        if hold:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def parts(
        self, project: str, upload_id: str, part_ids: Sequence[str] | None = None
    ) -> dict[str, UploadPartRow]:
        """All of the upload's parts, or those of them with these ids, by id."""
        statement = select(UploadPartRow).where(
            UploadPartRow.project == project, UploadPartRow.upload_id == upload_id
        )
        if part_ids is not None:
            statement = statement.where(UploadPartRow.id.in_(part_ids))
        return {row.id: row for row in (await self._session.execute(statement)).scalars()}

    async def received_bytes(self, project: str, upload_id: str) -> int:
        """Of all its parts, whether they will be used or not."""
        total = await self._session.execute(
            select(func.coalesce(func.sum(UploadPartRow.bytes), 0)).where(
                UploadPartRow.project == project, UploadPartRow.upload_id == upload_id
            )
        )
        return int(total.scalar_one())

    async def settle(
        self, project: str, upload_id: str, status: str, *, file_id: str | None = None
    ) -> bool:
        """End a pending upload as this; false where it has ended already."""
        done = await self._session.execute(
            update(UploadRow)
            .where(
                UploadRow.project == project,
                UploadRow.id == upload_id,
                UploadRow.status == "pending",
            )
            .values(status=status, file_id=file_id)
            .returning(UploadRow.id)
        )
        return done.first() is not None

    async def forget_parts(self, project: str, upload_id: str, part_ids: Sequence[str]) -> None:
        """Remove the rows of parts whose content is gone."""
        await self._session.execute(
            delete(UploadPartRow).where(
                UploadPartRow.project == project,
                UploadPartRow.upload_id == upload_id,
                UploadPartRow.id.in_(part_ids),
            )
        )

    # For the reaper, which serves all projects.

    async def expired(self, limit: int) -> list[tuple[str, str]]:
        """Project and id of uploads whose time is over before they were completed."""
        found = await self._session.execute(
            select(UploadRow.project, UploadRow.id)
            .where(UploadRow.expires_at <= now(), UploadRow.status == "pending")
            .order_by(UploadRow.expires_at)
            .limit(limit)
        )
        return [(project, upload_id) for project, upload_id in found]

    async def known_parts(self, part_ids: Iterable[str]) -> set[str]:
        """Those of these ids that have a row; objects of other parts belong to nobody."""
        found = await self._session.execute(
            select(UploadPartRow.id).where(UploadPartRow.id.in_([*part_ids]))
        )
        return set(found.scalars())
