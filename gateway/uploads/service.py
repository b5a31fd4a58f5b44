"""Files that come in parts, and are put together when all of them are there."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, seconds, sequence
from gateway.database.tables import UploadPartRow, UploadRow
from gateway.errors import (
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    UpstreamError,
)
from gateway.files.digest import Digest
from gateway.files.repository import FileRepository
from gateway.files.schemas import FileObject, NewFile
from gateway.files.service import FileService
from gateway.http.file_form import FileForm
from gateway.http.filename import harmless
from gateway.http.multipart import FileLimit, FormReader
from gateway.identity.principal import Principal
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import JobQueue, ObjectMissing, ObjectStore
from gateway.settings import LimitSettings, RetentionSettings
from gateway.uploads.repository import UploadRepository
from gateway.uploads.schemas import CompleteUpload, CreateUpload, PartObject, UploadObject

__all__ = ["UploadService"]

MAX_PART_BYTES = 64 * 1024 * 1024
_ID = re.compile(r"upload_[0-9a-f]{32}")
_PART_ID = re.compile(r"part_[0-9a-f]{32}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_MEDIA_TYPE = re.compile(r"[!-.0-~]{1,60}/[!-~]{1,60}( *;[ -~]{0,60})?")
_EXPIRED_AT_ONCE = 500


class UploadService:
    """The Uploads API. An upload is pending until it is completed, cancelled or expired."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        queue: JobQueue,
        files: FileService,
        limits: LimitSettings,
        retention: RetentionSettings,
    ) -> None:
        self._database = database
        self._objects = objects
        self._queue = queue
        self._files = files
        self._max_bytes = limits.max_upload_bytes
        self._lifetime = retention.upload_seconds
        self.limit = FileLimit("data", MAX_PART_BYTES, "the most for one part")

    async def create(self, principal: Principal, request: CreateUpload) -> UploadObject:
        if request.bytes > self._max_bytes:
            raise self._too_large("bytes")
        if _MEDIA_TYPE.fullmatch(request.mime_type) is None:
            raise InvalidRequest(
                "Invalid value for 'mime_type': expected a type such as 'text/plain'.",
                param="mime_type",
                code="invalid_value",
            )
        made = sequence()
        row = UploadRow(
            id=new_id("upload_"),
            project=principal.project,
            sequence=made,
            filename=harmless(request.filename),
            purpose=request.purpose,
            bytes=request.bytes,
            media_type=request.mime_type.partition(";")[0].strip().lower(),
            expires_at=seconds(made) + self._lifetime,
            file_expires_after=request.expires_after.seconds if request.expires_after else None,
        )
        async with self._database.begin() as session:
            await self._files.quotas.check_file(session, principal.project, request.bytes)
            UploadRepository(session).add(row)
        return _shown(row)

    async def add_part(
        self, principal: Principal, upload_id: str, reader: FormReader, activity: Activity
    ) -> PartObject:
        """Store the form's ``data`` as it comes. Whatever goes wrong, nothing of it stays."""
        project = principal.project
        async with self._database.read() as session:
            uploads = UploadRepository(session)
            _check_pending(await self._find(uploads, project, upload_id), upload_id)
            if await uploads.received_bytes(project, upload_id) >= self._max_bytes:
                raise self._too_large("data")
        form = await FileForm.begin(reader)
        row = UploadPartRow(
            id=new_id("part_"), project=project, upload_id=upload_id, sequence=0, bytes=0
        )
        with activity.step("store part"):
            row.bytes = await self._objects.put(row.object_key, form.content(lambda: None))
        row.sequence = sequence()
        try:
            async with self._database.begin() as session:
                uploads = UploadRepository(session)
                _check_pending(await self._find(uploads, project, upload_id, hold=True), upload_id)
                received = await uploads.received_bytes(project, upload_id)
                if received + row.bytes > self._max_bytes:
                    raise self._too_large("data")
                uploads.add_part(row)
        except (InvalidRequest, NotFound, PayloadTooLarge):
            await self._objects.delete([row.object_key])
            raise
        return PartObject(id=row.id, created_at=seconds(row.sequence), upload_id=upload_id)

    async def complete(
        self, principal: Principal, upload_id: str, request: CompleteUpload, activity: Activity
    ) -> UploadObject:
        """Put the parts together. Asked again, it answers with the same file.

        Of several that do so at once one makes the file, and the others answer with it.
        """
        project = principal.project
        async with self._database.read() as session:
            uploads = UploadRepository(session)
            upload = await self._find(uploads, project, upload_id)
            part_ids = [one for one in request.part_ids if _PART_ID.fullmatch(one) is not None]
            found = await uploads.parts(project, upload_id, part_ids)
        if upload.status == "completed":
            return await self._completed(upload)
        _check_pending(upload, upload_id)
        parts = _in_order(upload, request.part_ids, found)
        md5 = _wanted_md5(request)
        digest = Digest(with_md5=md5 is not None)
        described = NewFile(
            filename=upload.filename,
            purpose=upload.purpose,
            media_type=upload.media_type,
            expires_after=upload.file_expires_after,
        )
        content = self._joined(parts, digest, md5)
        try:
            with activity.step("put parts together") as step:
                file = await self._files.write(project, content, lambda: described, digest)
                step.attributes[semconv.FILE_ID] = file.id
        except ObjectMissing:
            return await self._ended(project, upload_id)
        try:
            async with self._database.begin() as session:
                uploads = UploadRepository(session)
                first = await uploads.settle(project, upload_id, "completed", file_id=file.id)
                if first:
                    await self._files.quotas.check_file(session, project, file.bytes)
                    FileRepository(session).add(file)
                    await self._put_job(session, project, upload_id)
        except QuotaExceeded:
            await self._objects.delete([file.object_key])
            raise
        if not first:
            await self._objects.delete([file.object_key])
            return await self._ended(project, upload_id)
        self._queue.wake()
        upload.status = "completed"
        return _shown(upload, self._files.shown(file))

    async def cancel(self, principal: Principal, upload_id: str) -> UploadObject:
        """No part can be added any more, and what came is removed."""
        project = principal.project
        async with self._database.begin() as session:
            uploads = UploadRepository(session)
            upload = await self._find(uploads, project, upload_id, hold=True)
            if upload.status != "cancelled":
                _check_pending(upload, upload_id)
                await uploads.settle(project, upload_id, "cancelled")
                await self._put_job(session, project, upload_id)
        self._queue.wake()
        upload.status = "cancelled"
        return _shown(upload)

    async def expire(self) -> int:
        """End uploads whose time is over, in every project; how many. For the reaper."""
        async with self._database.begin() as session:
            uploads = UploadRepository(session)
            due = await uploads.expired(_EXPIRED_AT_ONCE)
            for project, upload_id in due:
                if await uploads.settle(project, upload_id, "expired"):
                    await self._put_job(session, project, upload_id)
        if due:
            self._queue.wake()
        return len(due)

    async def _find(
        self, uploads: UploadRepository, project: str, upload_id: str, *, hold: bool = False
    ) -> UploadRow:
        is_id = _ID.fullmatch(upload_id) is not None
        row = await uploads.find(project, upload_id, hold=hold) if is_id else None
        if row is None:
            raise NotFound(f"No such Upload object: {upload_id[:100]}", param="upload_id")
        return row

    async def _ended(self, project: str, upload_id: str) -> UploadObject:
        """What came of an upload that another request has ended meanwhile."""
        async with self._database.read() as session:
            upload = await self._find(UploadRepository(session), project, upload_id)
        if upload.status == "completed":
            return await self._completed(upload)
        _check_pending(upload, upload_id)
        raise UpstreamError(
            f"The object store has lost a part of {upload_id}.", code="content_lost"
        )

    async def _completed(self, upload: UploadRow) -> UploadObject:
        assert upload.file_id is not None  # set with the status
        file = await self._files.find(upload.project, upload.file_id)
        return _shown(upload, self._files.shown(file))

    async def _joined(
        self, parts: Sequence[UploadPartRow], digest: Digest, md5: str | None
    ) -> AsyncGenerator[bytes, None]:
        """The parts' content, one after the other; over only if it is what the caller meant."""
        for part in parts:
            blocks = self._objects.read(part.object_key)
            async with aclosing(blocks):  # type: ignore[type-var]  # the port says that it closes
                async for block in blocks:
                    yield block
        if md5 is not None and digest.md5 != md5:
            raise InvalidRequest(
                f"The md5 of the file is {digest.md5}, not {md5}.",
                param="md5",
                code="checksum_mismatch",
            )

    async def _put_job(self, session: AsyncSession, project: str, upload_id: str) -> None:
        payload = {"project": project, "id": upload_id}
        await self._queue.put(session, "delete_upload", payload)

    def _too_large(self, param: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The file is too large: at most {self._max_bytes} bytes are taken in parts "
            "(limits.max_upload_bytes).",
            param=param,
        )


def _shown(row: UploadRow, file: FileObject | None = None) -> UploadObject:
    return UploadObject(
        id=row.id,
        bytes=row.bytes,
        created_at=seconds(row.sequence),
        expires_at=row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
        status=row.status,
        file=file,
    )


def _check_pending(upload: UploadRow, upload_id: str) -> None:
    status = upload.status
    if status == "pending" and upload.expires_at <= now():
        status = "expired"
    if status != "pending":
        raise InvalidRequest(
            f"The upload {upload_id} is {status}.", param="upload_id", code="upload_not_pending"
        )


def _wanted_md5(request: CompleteUpload) -> str | None:
    if request.md5 is None:
        return None
    if _MD5.fullmatch(request.md5) is None:
        raise InvalidRequest(
            "Invalid value for 'md5': expected 32 hexadecimal digits.",
            param="md5",
            code="invalid_value",
        )
    return request.md5.lower()


def _in_order(
    upload: UploadRow, part_ids: Sequence[str], found: Mapping[str, UploadPartRow]
) -> list[UploadPartRow]:
    """The parts as they make up the file. Raises ``InvalidRequest`` where they don't."""
    missing = next((part_id for part_id in part_ids if part_id not in found), None)
    if missing is not None:
        raise InvalidRequest(
            f"The upload {upload.id} has no part {missing[:100]!r}.",
            param="part_ids",
            code="invalid_value",
        )
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest(
            "Invalid value for 'part_ids': a part is named twice.",
            param="part_ids",
            code="invalid_value",
        )
    parts = [found[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in parts)
    if total != upload.bytes:
        raise InvalidRequest(
            f"The parts have {total} bytes together, but the upload was made for {upload.bytes}.",
            param="part_ids",
            code="invalid_value",
        )
    return parts
