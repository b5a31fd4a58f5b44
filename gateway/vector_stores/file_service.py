"""Files in vector stores: attaching, listing, changing and detaching them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, sequence
from gateway.database.paging import PageRequest
from gateway.database.tables import VectorStoreFileRow, VectorStoreRow
from gateway.errors import GatewayError, InvalidRequest
from gateway.http.pages import Page, page_of
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import JobQueue
from gateway.profile import Profile
from gateway.settings import IngestionSettings
from gateway.vector_stores.attachments import AttachmentRepository
from gateway.vector_stores.chunking import ChunkingResolver
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.properties import AttributeValue, check_attributes
from gateway.vector_stores.repository import StoreRepository, has_expired
from gateway.vector_stores.schemas import (
    AttachFile,
    Deleted,
    FileStatus,
    UpdateStoreFile,
    VectorStoreFileObject,
)
from gateway.vector_stores.shapes import Shapes

__all__ = ["PlannedFile", "StoreFileService"]

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_PAUSE_GROWTH = 1.5
_WAITS_FOR_FILES = 1000
"""A new store of more files than that answers when the first so many are done."""


class PlannedFile(Struct, frozen=True, kw_only=True):
    """A file that is to be attached, checked as far as that needs no database."""

    file_id: str
    param: str
    """The request's parameter that names it."""
    attributes: dict[str, AttributeValue] | None
    chunking: dict[str, Any] | None
    """``None`` for what fits the store's embedding model."""


class StoreFileService:
    """A file is in a store once. Its row, its attributes and the job to ingest it are written
    together, so that what was answered is always worked on.
    """

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        active: LastActive,
        chunking: ChunkingResolver,
        shapes: Shapes,
        profile: Profile,
        settings: IngestionSettings,
    ) -> None:
        self._database = database
        self._queue = queue
        self._active = active
        self._chunking = chunking
        self._shapes = shapes
        self._profile = profile
        self._settings = settings
        self._stores = StoreRepository()
        self._attachments = AttachmentRepository()

    # -- stores, as every service here needs them -----------------------------------------------

    def no_store(self, store_id: str) -> GatewayError:
        """The profile's error for a store that isn't there."""
        return self._profile.unknown_in_stores(
            f"No vector store found with id '{store_id}'.", param="vector_store_id"
        )

    async def store(
        self, session: AsyncSession, principal: Principal, store_id: str, *, lock: bool = False
    ) -> VectorStoreRow:
        """The store's row, expired or not. Raises :meth:`no_store`."""
        row = await self._stores.get(session, principal.project, store_id, lock=lock)
        if row is None:
            raise self.no_store(store_id)
        return row

    async def live_store(
        self, session: AsyncSession, principal: Principal, store_id: str, *, lock: bool = False
    ) -> VectorStoreRow:
        """The same, but raises ``InvalidRequest`` where the store has expired."""
        row = await self.store(session, principal, store_id, lock=lock)
        if has_expired(row):
            raise InvalidRequest(
                f"Vector store '{store_id}' has expired. Create a new one.",
                param="vector_store_id",
                code="vector_store_expired",
            )
        return row

    # -- attaching ------------------------------------------------------------------------------

    def plan(
        self, principal: Principal, wanted: Sequence[AttachFile], param: str
    ) -> list[PlannedFile]:
        """Check what is asked of these files; ``param`` names the list that they come from.

        Raises ``InvalidRequest``, also where one file is named twice with different settings.
        """
        planned: dict[str, PlannedFile] = {}
        for number, one in enumerate(wanted):
            inside = f"{param}[{number}]." if param == "files" else ""
            name = f"{inside}file_id" if inside or not param else f"{param}[{number}]"
            made = PlannedFile(
                file_id=one.file_id,
                param=name,
                attributes=None
                if one.attributes is None
                else check_attributes(one.attributes, f"{inside}attributes"),
                chunking=self._chunking.resolve(
                    one.chunking_strategy, f"{inside}chunking_strategy", principal.models
                ),
            )
            first = planned.setdefault(one.file_id, made)
            if (first.attributes, first.chunking) != (made.attributes, made.chunking):
                raise InvalidRequest(
                    f"The file '{one.file_id}' is named twice with different settings.",
                    param=name,
                    code="invalid_value",
                )
        return list(planned.values())

    async def check_uploaded(
        self, session: AsyncSession, principal: Principal, planned: Sequence[PlannedFile]
    ) -> Mapping[str, str]:
        """The names of these files by id. Raises the profile's error for the first that isn't
        there, naming its place in the request.
        """
        wanted = [one.file_id for one in planned]
        found = await self._attachments.uploaded(session, principal.project, wanted)
        for one in planned:
            if one.file_id not in found:
                raise self._profile.unknown_in_stores(
                    f"No such File object: {one.file_id}", param=one.param
                )
        return {row.id: row.filename for row in found.values()}

    async def attach_all(
        self,
        session: AsyncSession,
        principal: Principal,
        store: VectorStoreRow,
        planned: Sequence[PlannedFile],
        traceparent: str | None,
    ) -> list[str]:
        """Attach these in the caller's transaction; the ids of their attachments, in order.

        A file that is in the store already, in work or done and cut in the same way, stays and
        gets the new attributes, if any are given. Any other is replaced.
        """
        names = await self.check_uploaded(session, principal, planned)
        there = await self._attachments.of_files(
            session, principal.project, store.id, [one.file_id for one in planned]
        )
        ids, new, changed = [], [], []
        for one in planned:
            row = there.get(one.file_id)
            chunking = one.chunking or self._chunking.automatic(store.embedding_model)
            if row is not None and _serves(row, chunking):
                if one.attributes is not None:
                    changed.append((row, one.attributes))
            else:
                if row is not None:
                    await self._remove(session, row)
                row = VectorStoreFileRow(
                    id=new_id("vsf_"),
                    project=principal.project,
                    store_id=store.id,
                    sequence=sequence(),
                    file_id=one.file_id,
                    filename=names[one.file_id],
                    chunking=chunking,
                    attributes=one.attributes or {},
                    traceparent=traceparent,
                )
                new.append(row)
            ids.append(row.id)
        await self._attachments.set_attributes_of_many(session, changed)
        await session.flush()  # what is replaced makes way first
        await self._attachments.add(session, new)
        for row in new:
            await self._queue.put(session, "ingest_file", {"project": row.project, "id": row.id})
        return ids

    async def attach(
        self, principal: Principal, activity: Activity, store_id: str, wanted: AttachFile
    ) -> str:
        """Attach one file; the id of its attachment, for :meth:`settled`.

        Raises the profile's error for an unknown store or file, and ``InvalidRequest``.
        """
        planned = self.plan(principal, [wanted], "")
        async with self._database.begin() as session:
            store = await self.live_store(session, principal, store_id, lock=True)
            [attachment_id] = await self.attach_all(
                session, principal, store, planned, activity.traceparent()
            )
        self._queue.wake()
        self._active.note(principal.project, store_id)
        return attachment_id

    async def settled(
        self, principal: Principal, store_id: str, file_id: str, attachment_id: str
    ) -> VectorStoreFileObject:
        """The file once it is done, or when the time to wait is over. Cancelling it is safe."""
        waits = self._profile.attach_waits
        seconds = self._settings.timeout_seconds if waits else self._settings.attach_wait_seconds
        await self._wait(principal, [attachment_id], seconds)
        async with self._database.read() as session:
            row = await self._attachments.by_id(session, principal.project, attachment_id)
        if row is None:  # detached meanwhile, or the store is gone
            raise self._no_file(store_id, file_id)
        return self._shapes.file(row)

    async def wait_for_store(self, principal: Principal, store_id: str) -> None:
        """Until no file of this store is in work, or the profile's time to wait is over."""
        page = PageRequest(limit=_WAITS_FOR_FILES, order="asc")
        async with self._database.read() as session:
            rows = await self._attachments.page(
                session, principal.project, store_id, page, status="in_progress"
            )
        if rows:
            ids = [row.id for row in rows]
            await self._wait(principal, ids, self._settings.timeout_seconds)

    async def _wait(self, principal: Principal, ids: Sequence[str], seconds: float) -> None:
        """Until none of these is in work, looking at once and then less and less often."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + seconds, _FIRST_PAUSE_SECONDS
        while True:
            async with self._database.read() as session:
                states = await self._attachments.statuses(session, principal.project, ids)
            left = deadline - loop.time()
            if "in_progress" not in states or left <= 0:
                return
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE_SECONDS)

    # -- what is there --------------------------------------------------------------------------

    async def list(
        self,
        principal: Principal,
        store_id: str,
        page: PageRequest,
        status: FileStatus | None = None,
    ) -> Page[VectorStoreFileObject]:
        async with self._database.read() as session:
            await self.store(session, principal, store_id)
            rows = await self._attachments.page(
                session, principal.project, store_id, page, status=status
            )
        return page_of(rows, page, self._shapes.file, empty=self._profile.empty_cursor)

    async def get(self, principal: Principal, store_id: str, file_id: str) -> VectorStoreFileObject:
        async with self._database.read() as session:
            return self._shapes.file(await self._row(session, principal, store_id, file_id))

    async def update(
        self, principal: Principal, store_id: str, file_id: str, wanted: UpdateStoreFile
    ) -> VectorStoreFileObject:
        """Searches see the new attributes at once; nothing is embedded again."""
        attributes = check_attributes(wanted.attributes)
        async with self._database.begin() as session:
            row = await self._row(session, principal, store_id, file_id, lock=True)
            await self._attachments.set_attributes(session, row, attributes)
        return self._shapes.file(row)

    async def detach(self, principal: Principal, store_id: str, file_id: str) -> Deleted:
        """Out of every search at once; the file itself stays."""
        async with self._database.begin() as session:
            row = await self._row(session, principal, store_id, file_id, lock=True)
            await self._remove(session, row)
        self._queue.wake()
        return Deleted(id=file_id, object="vector_store.file.deleted")

    async def _row(
        self,
        session: AsyncSession,
        principal: Principal,
        store_id: str,
        file_id: str,
        *,
        lock: bool = False,
    ) -> VectorStoreFileRow:
        await self.store(session, principal, store_id)
        row = await self._attachments.get(session, principal.project, store_id, file_id, lock=lock)
        if row is None:
            raise self._no_file(store_id, file_id)
        return row

    async def _remove(self, session: AsyncSession, row: VectorStoreFileRow) -> None:
        """A tombstone, and the job that removes what hangs on it."""
        row.deleted_at = now()
        payload = {"project": row.project, "id": row.id}
        await self._queue.put(session, "delete_attachment", payload)

    def _no_file(self, store_id: str, file_id: str) -> GatewayError:
        return self._profile.unknown_in_stores(
            f"No file found with id '{file_id}' in vector store '{store_id}'.", param="file_id"
        )


def _serves(row: VectorStoreFileRow, chunking: dict[str, Any]) -> bool:
    """Whether what is there already is what is asked for."""
    return row.status in {"in_progress", "completed"} and row.chunking == chunking
