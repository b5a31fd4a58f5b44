"""Finds what belongs to nobody: objects without rows, vectors without files.

Such things are left where a process died between two systems. Nobody sees them; they take room.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable

from sqlalchemy import select, union

from gateway.database.engine import Database
from gateway.database.tables import ChunkRow, FileRow, UploadRow, VectorStoreFileRow, VectorStoreRow
from gateway.files.repository import FileRepository
from gateway.identity.principal import DEFAULT_PROJECT
from gateway.ingestion.repository import remove_chunks
from gateway.ports import ObjectStore, StoredObject, StoreIndex, VectorIndex
from gateway.uploads.repository import UploadRepository
from gateway.vector_stores.repository import index_of

__all__ = ["Reconciler"]

logger = logging.getLogger(__name__)

_BATCH = 500
_STORES_AT_ONCE = 50


class Reconciler:
    """Compares the object store and the index with the database.

    Nothing is removed before it has belonged to nobody for ``grace_seconds``, longer than any
    request or job takes between writing something and saying so in the database. Objects and
    stores of which the database knows nothing are removed only where ``owns_objects`` and
    ``owns_index`` say that no other gateway keeps its own there; else they are only counted.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        index: VectorIndex,
        *,
        grace_seconds: float,
        owns_objects: bool,
        owns_index: bool,
    ) -> None:
        self._database = database
        self._objects = objects
        self._index = index
        self._grace = grace_seconds
        self._owns_objects = owns_objects
        self._owns_index = owns_index
        self._seen: dict[str, float] = {}
        """When something was first found to belong to nobody, by its name."""

    async def run(self) -> None:
        """One pass over everything. Raises ``UpstreamError``."""
        marked = time.monotonic()
        for project in await self._projects():
            await self._check_objects(f"{project}/files/", FileRepository, 2)
            await self._check_objects(f"{project}/uploads/", UploadRepository, 3)
        await self._check_stores(marked)
        await self._check_attachments(marked)
        await self._check_chunks()

    async def _projects(self) -> list[str]:
        """All that have anything, and the default one, which may have lost its last row."""
        async with self._database.read() as session:
            found = await session.execute(
                union(
                    select(FileRow.project),
                    select(UploadRow.project),
                    select(VectorStoreRow.project),
                )
            )
            return sorted({DEFAULT_PROJECT, *found.scalars()})

    # -- objects --------------------------------------------------------------------------------

    async def _check_objects(
        self, prefix: str, repository: type[FileRepository | UploadRepository], place: int
    ) -> None:
        """``place`` is that of the row's id in the key."""
        orphans = 0
        async for objects in _old(self._objects.list(prefix), self._grace):
            ids = {one.key.split("/")[place] for one in objects if one.key.count("/") >= place}
            async with self._database.read() as session:
                found = repository(session)
                known = await (
                    found.known(ids)
                    if isinstance(found, FileRepository)
                    else found.known_parts(ids)
                )
            keys = [one.key for one in objects if not {*one.key.split("/")} & known]
            orphans += len(keys)
            if keys and self._owns_objects:
                await self._objects.delete(keys)
        if orphans:
            what = "removed" if self._owns_objects else "left; they may be another gateway's"
            logger.info("%d objects below %s belong to nothing: %s", orphans, prefix, what)

    # -- vectors --------------------------------------------------------------------------------

    async def _check_stores(self, marked: float) -> None:
        present = await self._index.stores()
        async with self._database.read() as session:
            rows = (await session.execute(select(VectorStoreRow.id))).scalars()
            orphans = present - set(rows)
        due = self._due("store", orphans, marked)
        if due and not self._owns_index:
            logger.info("The index has %d stores that may be another gateway's", len(due))
            return
        shapes = await self._shapes() if due else []
        for store_id in due:
            logger.info("The vectors of %s belong to no store: removed", store_id)
            for project, dimension, keyword in shapes:
                await self._index.drop(
                    StoreIndex(
                        project=project, store_id=store_id, dimension=dimension, keyword=keyword
                    )
                )

    async def _shapes(self) -> list[tuple[str, int, bool]]:
        """In which forms stores exist: where vectors lie is derived from these."""
        async with self._database.read() as session:
            found = await session.execute(
                select(VectorStoreRow.dimension, VectorStoreRow.keyword).distinct()
            )
            forms = [(dimension, keyword) for dimension, keyword in found] or [(1, False)]
        return [(project, *form) for project in await self._projects() for form in forms]

    async def _check_attachments(self, marked: float) -> None:
        after = ""
        while True:
            async with self._database.read() as session:
                stores = list(
                    (
                        await session.execute(
                            select(VectorStoreRow)
                            .where(VectorStoreRow.id > after, VectorStoreRow.deleted_at.is_(None))
                            .order_by(VectorStoreRow.id)
                            .limit(_STORES_AT_ONCE)
                        )
                    ).scalars()
                )
            for store in stores:
                await self._check_store(index_of(store), marked)
            if len(stores) < _STORES_AT_ONCE:
                return
            after = stores[-1].id

    async def _check_store(self, store: StoreIndex, marked: float) -> None:
        present = await self._index.attachments(store)
        async with self._database.read() as session:
            wanted = await session.execute(
                select(VectorStoreFileRow.id).where(
                    VectorStoreFileRow.store_id == store.store_id,
                    VectorStoreFileRow.status.in_(("in_progress", "completed")),
                )
            )
            orphans = present - set(wanted.scalars())
        for attachment_id in self._due(f"in {store.store_id}", orphans, marked):
            logger.info("Vectors in %s belong to no file: removed", store.store_id)
            await self._index.delete(store, attachment_id)

    def _due(self, where: str, orphans: Iterable[str], marked: float) -> list[str]:
        """Those of these that have been orphans for long; the others are remembered."""
        names = {f"{where} {one}": one for one in orphans}
        for name in [one for one in self._seen if one.startswith(f"{where} ")]:
            if name not in names:
                del self._seen[name]
        return [
            one
            for name, one in names.items()
            if self._seen.setdefault(name, marked) <= marked - self._grace
        ]

    # -- chunks ---------------------------------------------------------------------------------

    async def _check_chunks(self) -> None:
        """Those of files that failed or were cancelled while their worker was dead."""
        given_up = select(VectorStoreFileRow.id).where(
            VectorStoreFileRow.status.in_(("failed", "cancelled"))
        )
        await remove_chunks(self._database, ChunkRow.attachment_id.in_(given_up))


async def _old(
    objects: AsyncIterator[StoredObject], seconds: float
) -> AsyncIterator[list[StoredObject]]:
    """Those that were written at least so long ago, some at a time."""
    before = time.time() - seconds
    some: list[StoredObject] = []
    async for one in objects:
        if one.modified <= before:
            some.append(one)
        if len(some) == _BATCH:
            yield some
            some = []
    if some:
        yield some
