"""Vector stores in the database."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import now
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import VectorStoreFileRow, VectorStoreRow
from gateway.ports import StoreIndex
from gateway.vector_stores.schemas import FileCounts

__all__ = ["SECONDS_PER_DAY", "StoreRepository", "StoreUsage", "has_expired", "index_of"]

SECONDS_PER_DAY = 24 * 3600


class StoreUsage(Struct, frozen=True, kw_only=True):
    """What is in a store. ``bytes`` counts ready-made chunks as well, which are in no file."""

    counts: FileCounts = FileCounts()
    bytes: int = 0


def index_of(store: VectorStoreRow) -> StoreIndex:
    """The store's part of the vector index."""
    return StoreIndex(
        project=store.project,
        store_id=store.id,
        dimension=store.dimension,
        keyword=store.keyword,
    )


def has_expired(store: VectorStoreRow) -> bool:
    return store.expires_at is not None and store.expires_at <= now()


class StoreRepository:
    """Every method works within the caller's transaction, in one project."""

    async def get(
        self, session: AsyncSession, project: str, store_id: str, *, lock: bool = False
    ) -> VectorStoreRow | None:
        """``None`` where there is none or it is deleted. ``lock`` keeps others from changing
        what is in it until the transaction ends: who locks several of its files locks it first, so
        that no two wait for each other.
        """
        if "\x00" in store_id:  # which PostgreSQL can't even look for
            return None
        statement = self._all(project).where(VectorStoreRow.id == store_id)
        if lock:
            statement = statement.with_for_update(key_share=True)
        return (await session.execute(statement)).scalar_one_or_none()

    async def holder(self, session: AsyncSession, store_id: str) -> VectorStoreRow | None:
        """Who has this id, in whichever project and deleted or not. For choosing ids only."""
        return await session.get(VectorStoreRow, store_id)

    async def page(
        self, session: AsyncSession, project: str, page: PageRequest
    ) -> list[VectorStoreRow]:
        """Up to ``limit + 1`` rows."""
        return await page_rows(
            session, self._all(project), VectorStoreRow, page, cursor=VectorStoreRow.id
        )

    async def usage(
        self, session: AsyncSession, project: str, store_ids: Sequence[str]
    ) -> dict[str, StoreUsage]:
        """What is in each of these stores; one query for all of them."""
        files = VectorStoreFileRow
        counted = await session.execute(
            select(
                files.store_id,
                files.status,
                func.count(files.file_id),
                func.sum(files.usage_bytes),
            )
            .where(
                files.project == project,
                files.store_id.in_(store_ids),
                files.deleted_at.is_(None),
            )
            .group_by(files.store_id, files.status)
        )
        counts: dict[str, dict[str, int]] = {one: {} for one in store_ids}
        sizes: dict[str, int] = dict.fromkeys(store_ids, 0)
        for store_id, status, number, size in counted:
            counts[store_id][status] = number
            sizes[store_id] += int(size)  # PostgreSQL's sums of integers are decimals
        return {
            one: StoreUsage(
                counts=FileCounts(**counts[one], total=sum(counts[one].values())), bytes=sizes[one]
            )
            for one in store_ids
        }

    async def delete(self, session: AsyncSession, project: str, store_id: str) -> bool:
        """Mark it as gone, and what is in work for it. False where it isn't there."""
        store, files = VectorStoreRow, VectorStoreFileRow
        if "\x00" in store_id:
            return False
        gone = await session.execute(
            update(store)
            .where(store.project == project, store.id == store_id, store.deleted_at.is_(None))
            .values(deleted_at=now())
            .returning(store.id)
        )
        if gone.scalar_one_or_none() is None:
            return False
        await session.execute(
            update(files)
            .where(
                files.project == project,
                files.store_id == store_id,
                files.status == "in_progress",
                files.deleted_at.is_(None),
            )
            .values(deleted_at=now())
        )
        return True

    def _all(self, project: str) -> Select[VectorStoreRow]:
        return select(VectorStoreRow).where(
            VectorStoreRow.project == project, VectorStoreRow.deleted_at.is_(None)
        )
