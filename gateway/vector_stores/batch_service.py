"""Batches: many files attached with one request, and watched with one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import now, sequence
from gateway.database.paging import PageRequest
from gateway.database.tables import FileBatchRow
from gateway.errors import InvalidRequest
from gateway.http.pages import Page, page_of
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import JobQueue
from gateway.profile import Profile
from gateway.vector_stores.attachments import AttachmentRepository
from gateway.vector_stores.batches import FileBatchRepository
from gateway.vector_stores.file_service import PlannedFile, StoreFileService
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.schemas import (
    AttachFile,
    CreateFileBatch,
    FileBatchObject,
    FileStatus,
    VectorStoreFileObject,
)
from gateway.vector_stores.service import new_store_id
from gateway.vector_stores.shapes import Shapes, batch_status

__all__ = ["FileBatchService"]


class FileBatchService:
    """A batch is attached whole or not at all."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        active: LastActive,
        files: StoreFileService,
        shapes: Shapes,
        profile: Profile,
    ) -> None:
        self._database = database
        self._queue = queue
        self._active = active
        self._files = files
        self._shapes = shapes
        self._profile = profile
        self._attachments = AttachmentRepository()
        self._batches = FileBatchRepository()

    async def create(
        self, principal: Principal, activity: Activity, store_id: str, wanted: CreateFileBatch
    ) -> FileBatchObject:
        """Raises the profile's error for an unknown store or file, naming the file's place in
        the request, and ``InvalidRequest``.
        """
        planned = self._plan(principal, wanted)
        batch = FileBatchRow(
            id=new_store_id(self._profile, self._profile.batch_prefix),
            project=principal.project,
            store_id=store_id,
            sequence=sequence(),
        )
        async with self._database.begin() as session:
            store = await self._files.live_store(session, principal, store_id, lock=True)
            ids = await self._files.attach_all(
                session, principal, store, planned, activity.traceparent()
            )
            await self._batches.add(session, batch, ids)
            counts = await self._batches.counts(session, principal.project, batch.id)
        self._queue.wake()
        self._active.note(principal.project, store_id)
        return self._shapes.batch(batch, counts)

    async def get(self, principal: Principal, store_id: str, batch_id: str) -> FileBatchObject:
        async with self._database.read() as session:
            batch = await self._row(session, principal, store_id, batch_id)
            counts = await self._batches.counts(session, principal.project, batch_id)
        return self._shapes.batch(batch, counts)

    async def cancel(self, principal: Principal, store_id: str, batch_id: str) -> FileBatchObject:
        """What is in work for no other batch is cancelled; what is done stays in the store."""
        async with self._database.begin() as session:
            batch = await self._row(session, principal, store_id, batch_id, lock=True)
            counts = await self._batches.counts(session, principal.project, batch_id)
            state = batch_status(batch, counts)
            if state == "in_progress":
                in_work = await self._batches.in_work(session, principal.project, batch_id)
                await self._attachments.cancel(session, principal.project, in_work)
                batch.cancelled_at = now()
                counts = await self._batches.counts(session, principal.project, batch_id)
            elif self._profile.refuses_late_cancel:
                raise InvalidRequest(
                    f"The file batch '{batch_id}' is {state} and can't be cancelled any more.",
                    param="batch_id",
                )
        return self._shapes.batch(batch, counts)

    async def list_files(
        self,
        principal: Principal,
        store_id: str,
        batch_id: str,
        page: PageRequest,
        status: FileStatus | None = None,
    ) -> Page[VectorStoreFileObject]:
        async with self._database.read() as session:
            await self._row(session, principal, store_id, batch_id)
            rows = await self._attachments.page(
                session, principal.project, store_id, page, status=status, batch_id=batch_id
            )
        return page_of(rows, page, self._shapes.file, empty=self._profile.empty_cursor)

    async def _row(
        self,
        session: AsyncSession,
        principal: Principal,
        store_id: str,
        batch_id: str,
        *,
        lock: bool = False,
    ) -> FileBatchRow:
        await self._files.store(session, principal, store_id, lock=lock)
        row = await self._batches.get(session, principal.project, store_id, batch_id)
        if row is None:
            raise self._profile.unknown_in_stores(
                f"No file batch found with id '{batch_id}' in vector store '{store_id}'.",
                param="batch_id",
            )
        return row

    def _plan(self, principal: Principal, wanted: CreateFileBatch) -> Sequence[PlannedFile]:
        if wanted.file_ids and wanted.files:
            raise InvalidRequest(
                "Give either 'file_ids' or 'files', not both.",
                param="files",
                code="mutually_exclusive_parameters",
            )
        if not wanted.file_ids and not wanted.files:
            raise InvalidRequest(
                "Missing required parameter: 'file_ids'.",
                param="file_ids",
                code="missing_required_parameter",
            )
        if wanted.files:
            return self._files.plan(principal, wanted.files, "files")
        shared = [
            AttachFile(
                file_id=one,
                attributes=wanted.attributes,
                chunking_strategy=wanted.chunking_strategy,
            )
            for one in wanted.file_ids or ()
        ]
        return self._files.plan(principal, shared, "file_ids")
