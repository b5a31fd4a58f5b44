"""How much a project may keep."""

from __future__ import annotations

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.tables import FileRow, VectorStoreRow
from gateway.errors import QuotaExceeded
from gateway.settings import LimitSettings, QuotaSettings

__all__ = ["Quotas"]

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_ANY = "*"


class Quotas:
    """Checked in the transaction that adds an object, one after the other for each project, so
    that a quota holds however many are added at once.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._quotas = {quota.project: quota for quota in settings.quotas}

    def of(self, project: str) -> QuotaSettings | None:
        """The one that names the project, or the one for all."""
        return self._quotas.get(project) or self._quotas.get(_ANY)

    async def check_file(self, session: AsyncSession, project: str, size: int) -> None:
        """Whether one more file of so many bytes fits in. Raises ``QuotaExceeded``.

        What was deleted doesn't count, though a job may still be removing it.
        """
        quota = self.of(project)
        if quota is None or quota.max_files is quota.max_file_bytes_total is None:
            return
        await _alone(session, f"files of {project}")
        counted = select(func.count(), func.coalesce(func.sum(FileRow.bytes), 0)).where(
            FileRow.project == project, FileRow.deleted_at.is_(None)
        )
        files, kept = (await session.execute(counted)).one()
        if quota.max_files is not None and files >= quota.max_files:
            raise QuotaExceeded(
                f"The project has {files} files, which is as many as it may have. Delete some.",
                param="file",
            )
        most = quota.max_file_bytes_total
        if most is not None and int(kept) + size > most:
            raise QuotaExceeded(
                f"The project's files have {int(kept)} bytes; with this one they would have more "
                f"than the {most} that they may have. Delete some.",
                param="file",
            )

    async def check_store(self, session: AsyncSession, project: str) -> None:
        """Whether one more vector store fits in. Raises ``QuotaExceeded``."""
        quota = self.of(project)
        if quota is None or quota.max_vector_stores is None:
            return
        await _alone(session, f"vector stores of {project}")
        counted = select(func.count()).where(
            VectorStoreRow.project == project, VectorStoreRow.deleted_at.is_(None)
        )
        stores = (await session.execute(counted)).scalar_one()
        if stores >= quota.max_vector_stores:
            raise QuotaExceeded(
                f"The project has {stores} vector stores, which is as many as it may have. "
                "Delete some."
            )


async def _alone(session: AsyncSession, what: str) -> None:
    """Until the transaction ends; on SQLite a transaction that writes is alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_LOCK, {"name": what})
