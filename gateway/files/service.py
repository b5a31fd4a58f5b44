"""Files: their content goes to the object store, what is known of them into the database."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import UNSET

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, seconds, sequence
from gateway.database.tables import FileRow
from gateway.errors import NotFound, QuotaExceeded, UpstreamError
from gateway.files.digest import Digest
from gateway.files.repository import FileRepository
from gateway.files.schemas import (
    EXPIRES_AFTER_FIELDS,
    OUR_PURPOSES,
    PURPOSES,
    DeletedFile,
    FileObject,
    NewFile,
    check_purpose,
    expires_after_of,
    purpose_of,
)
from gateway.http.download import Content
from gateway.http.file_form import FileForm
from gateway.http.multipart import FileLimit, FormReader
from gateway.http.pages import Page, page_of, page_request
from gateway.identity.principal import Principal
from gateway.limits.quotas import Quotas
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import JobQueue, ObjectMissing, ObjectStore
from gateway.profile import Profile
from gateway.settings import LimitSettings

__all__ = ["FileService"]

_FIELDS = frozenset({"purpose", *EXPIRES_AFTER_FIELDS})
_ID = re.compile(r"file-[0-9a-f]{1,64}")
_MOST_LISTED = 10_000
_EXPIRED_AT_ONCE = 500


class FileService:
    """The Files API, and what other parts of the gateway store and read files with."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        queue: JobQueue,
        profile: Profile,
        limits: LimitSettings,
    ) -> None:
        self._database = database
        self._objects = objects
        self._queue = queue
        self._profile = profile
        self.quotas = Quotas(limits)
        self.limit = FileLimit("file", limits.max_file_bytes, "limits.max_file_bytes")

    async def create(
        self, principal: Principal, reader: FormReader, activity: Activity
    ) -> FileObject:
        """Store the form's file as it comes. Whatever goes wrong, nothing of it stays."""
        async with self._database.read() as session:  # why take in a file that will be refused?
            await self.quotas.check_file(session, principal.project, 0)
        form = await FileForm.begin(reader, _FIELDS)
        if "purpose" in form.fields:
            purpose_of(form.fields)  # the same

        def described() -> NewFile:
            return NewFile(
                filename=form.filename,
                purpose=purpose_of(form.fields),
                media_type=form.media_type,
                expires_after=expires_after_of(form.fields),
            )

        with activity.step("store file") as step:
            row = await self.store(principal.project, form.content(described), described)
            step.attributes[semconv.FILE_ID] = row.id
        return self.shown(row)

    async def store(
        self, project: str, content: AsyncGenerator[bytes, None], described: Callable[[], NewFile]
    ) -> FileRow:
        """Store what ``content`` yields, then ask what it is, and make a file of it.

        What ``content`` raises is raised here, and ``QuotaExceeded``; nothing is stored then. A
        process that dies between the object and the row leaves an object without a row, which the
        reaper finds.
        """
        row = await self.write(project, content, described)
        try:
            async with self._database.begin() as session:
                await self.quotas.check_file(session, project, row.bytes)
                FileRepository(session).add(row)
        except QuotaExceeded:
            await self._objects.delete([row.object_key])
            raise
        return row

    async def write(
        self,
        project: str,
        content: AsyncGenerator[bytes, None],
        described: Callable[[], NewFile],
        digest: Digest | None = None,
    ) -> FileRow:
        """The first half of :meth:`store`: the row is made, and the caller's to add."""
        digest = digest or Digest()
        row = FileRow(
            id=new_id("file-"),
            project=project,
            sequence=0,
            filename="",
            purpose="",
            bytes=0,
            sha256="",
        )
        await self._objects.put(row.object_key, digest.over(content))
        new = described()
        lifetime = new.expires_after
        if lifetime is None and new.purpose == "batch":
            lifetime = self._profile.batch_file_seconds
        row.sequence = sequence()
        row.filename = new.filename
        row.purpose = new.purpose
        row.media_type = new.media_type
        row.expires_at = None if lifetime is None else seconds(row.sequence) + lifetime
        row.bytes = digest.size
        row.sha256 = digest.sha256
        return row

    async def list(
        self,
        principal: Principal,
        *,
        purpose: str | None,
        limit: int | None,
        order: str | None,
        after: str | None,
        before: str | None,
    ) -> Page[FileObject]:
        if purpose is not None:
            check_purpose(purpose, (*PURPOSES, *OUR_PURPOSES))
        page = page_request(
            limit=limit,
            order=order,
            after=after,
            before=before,
            default=_MOST_LISTED,
            most=_MOST_LISTED,
        )
        async with self._database.read() as session:
            rows = await FileRepository(session).page(principal.project, purpose, page)
        return page_of(rows, page, self.shown, empty=self._profile.empty_cursor)

    async def retrieve(self, principal: Principal, file_id: str) -> FileObject:
        """Raises ``NotFound``, as the others do."""
        return self.shown(await self.find(principal.project, file_id))

    async def delete(self, principal: Principal, file_id: str) -> DeletedFile:
        """Gone at once, from every vector store too; a job removes what is left of it."""
        self._check_id(file_id)
        project = principal.project
        async with self._database.begin() as session:
            files = FileRepository(session)
            seen = await files.find(project, file_id) is not None
            if not seen or not await files.tombstone(project, file_id):
                raise self._unknown(file_id)
            await self._queue.put(session, "delete_file", {"project": project, "id": file_id})
        self._queue.wake()
        return DeletedFile(id=file_id)

    async def content(self, principal: Principal, file_id: str) -> Content:
        row = await self.find(principal.project, file_id)
        return Content(
            filename=row.filename,
            media_type=row.media_type,
            size=row.bytes,
            digest=row.sha256,
            read=lambda start, end: self._read(row, start, end),
        )

    async def delete_expired(self) -> int:
        """Delete files whose time is over, in every project; how many. For the reaper."""
        async with self._database.begin() as session:
            files = FileRepository(session)
            due = await files.expired(_EXPIRED_AT_ONCE)
            for project, file_id in due:
                if await files.tombstone(project, file_id):
                    payload = {"project": project, "id": file_id}
                    await self._queue.put(session, "delete_file", payload)
        if due:
            self._queue.wake()
        return len(due)

    async def find(self, project: str, file_id: str) -> FileRow:
        """Raises ``NotFound``."""
        self._check_id(file_id)
        async with self._database.read() as session:
            row = await FileRepository(session).find(project, file_id)
        if row is None:
            raise self._unknown(file_id)
        return row

    def shown(self, row: FileRow) -> FileObject:
        return FileObject(
            id=row.id,
            bytes=row.bytes,
            created_at=seconds(row.sequence),
            expires_at=UNSET if row.expires_at is None else row.expires_at,
            filename=row.filename,
            purpose=row.purpose,
            status_details=self._profile.file_status_details,
        )

    async def _read(self, row: FileRow, start: int, end: int) -> AsyncGenerator[bytes, None]:
        blocks = self._objects.read(row.object_key, start, end)
        try:
            async with aclosing(blocks):  # type: ignore[type-var]  # the port says that it closes
                async for block in blocks:
                    yield block
        except ObjectMissing:
            await self.find(row.project, row.id)  # deleted meanwhile, most likely
            raise UpstreamError(
                f"The object store has lost the content of {row.id}.", code="content_lost"
            ) from None

    def _check_id(self, file_id: str) -> None:
        if _ID.fullmatch(file_id) is None:
            raise self._profile.malformed_file_id(
                f"No such File object: {file_id[:100]}", param="id"
            )

    def _unknown(self, file_id: str) -> NotFound:
        return NotFound(f"No such File object: {file_id}", param="id")
