"""Batches as callers make, watch and cancel them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import cast

import msgspec
from sqlalchemy.exc import IntegrityError

from gateway.batches.repository import BatchRepository
from gateway.batches.schemas import (
    BatchError,
    BatchErrors,
    BatchObject,
    BatchStatus,
    BatchUsage,
    CreateBatch,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
)
from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, seconds, sequence
from gateway.database.tables import BatchRow
from gateway.errors import FinalConflict, InvalidRequest, NotFound
from gateway.files.service import FileService
from gateway.http.pages import Page, page_of, page_request
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import JobQueue
from gateway.settings import BatchSettings
from gateway.vector_stores.properties import check_metadata, check_text

__all__ = ["BatchService", "endpoint_of"]

_COMPLETION_WINDOW = "24h"
_OTHER_PREFIX = "/v1/openai/v1/"
_ID = re.compile(r"batch_[0-9a-f]{1,64}")
_CANCELLABLE = ("validating", "in_progress")
_CANCELLED = ("cancelling", "cancelled")
_LONGEST_KEY = 255

_FORGOTTEN_SECONDS = 3600
"""A batch that no worker has touched for so long gets a new job."""

_AT_ONCE = 500


def endpoint_of(url: str) -> str:
    """The endpoint that a path means: LlamaStack's older clients write ``/v1/openai/v1/…``."""
    return "/v1/" + url.removeprefix(_OTHER_PREFIX) if url.startswith(_OTHER_PREFIX) else url


class BatchService:
    """The Batch API. ``endpoints`` are those that lines may be for."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        files: FileService,
        settings: BatchSettings,
        endpoints: Collection[str],
    ) -> None:
        self._database = database
        self._queue = queue
        self._files = files
        self._settings = settings
        self._endpoints = sorted(endpoints)

    async def create(
        self,
        principal: Principal,
        activity: Activity,
        wanted: CreateBatch,
        header_key: str | None = None,
    ) -> BatchObject:
        """The same key and the same request give the same batch, however often.

        Raises ``InvalidRequest``, ``NotFound`` for the file, and ``FinalConflict`` where the key
        stands for another request.
        """
        project = principal.project
        row = self._row(principal, activity, wanted, _key(wanted, header_key))
        if (earlier := await self._earlier(row)) is not None:
            return self.shown(earlier)
        await self._check_file(principal, wanted.input_file_id)
        try:
            async with self._database.begin() as session:
                BatchRepository(session).add(row)
                await session.flush()
                await self._queue.put(session, "run_batch", {"project": project, "id": row.id})
        except IntegrityError:  # the same key, at the same time
            if (earlier := await self._earlier(row)) is None:
                raise
            return self.shown(earlier)
        self._queue.wake()
        return self.shown(row)

    async def retrieve(self, principal: Principal, batch_id: str) -> BatchObject:
        """Raises ``NotFound``."""
        _check_id(batch_id)
        async with self._database.read() as session:
            row = await BatchRepository(session).find(principal.project, batch_id)
        if row is None:
            raise _unknown(batch_id)
        return self.shown(row)

    async def list(
        self, principal: Principal, *, limit: int | None, after: str | None
    ) -> Page[BatchObject]:
        page = page_request(limit=limit, order=None, after=after)
        async with self._database.read() as session:
            rows = await BatchRepository(session).page(principal.project, page)
        return page_of(rows, page, self.shown, empty=None)

    async def cancel(self, principal: Principal, batch_id: str) -> BatchObject:
        """Cancelling at once; its worker, or another one, ends it. Once more is no error.

        Raises ``NotFound``, and ``FinalConflict`` where its lines are done.
        """
        _check_id(batch_id)
        project = principal.project
        async with self._database.begin() as session:
            row = await BatchRepository(session).find(project, batch_id, lock=True)
            if row is None:
                raise _unknown(batch_id)
            if row.status in _CANCELLABLE:
                row.status = "cancelling"
                row.cancelling_at = now()
                payload = {"project": project, "id": batch_id}
                await self._queue.put(session, "cancel_batch", payload)
            elif row.status not in _CANCELLED:
                raise FinalConflict(f"Cannot cancel a batch with status '{row.status}'.")
        self._queue.wake()
        return self.shown(row)

    # For the reaper.

    async def remind(self) -> int:
        """New jobs for batches whose own is lost; how many."""
        async with self._database.begin() as session:
            rows = await BatchRepository(session).forgotten(_FORGOTTEN_SECONDS, _AT_ONCE)
            for row in rows:
                kind = "cancel_batch" if row.status == "cancelling" else "run_batch"
                payload = {"project": row.project, "id": row.id, "reminder": True}
                await self._queue.put(session, kind, payload)
        if rows:
            self._queue.wake()
        return len(rows)

    async def forget_lines(self) -> int:
        """Remove what a worker that died left of batches that are over; how many lines."""
        async with self._database.begin() as session:
            return await BatchRepository(session).remove_leftover_lines(_AT_ONCE)

    def shown(self, row: BatchRow) -> BatchObject:
        return BatchObject(
            id=row.id,
            endpoint=row.endpoint,
            model=row.model,
            errors=BatchErrors(data=msgspec.convert(row.errors, list[BatchError]))
            if row.errors
            else None,
            input_file_id=row.input_file_id,
            completion_window=row.completion_window,
            status=cast("BatchStatus", row.status),
            output_file_id=row.output_file_id,
            error_file_id=row.error_file_id,
            created_at=seconds(row.sequence),
            in_progress_at=row.in_progress_at,
            expires_at=row.expires_at,
            finalizing_at=row.finalizing_at,
            completed_at=row.completed_at,
            failed_at=row.failed_at,
            expired_at=row.expired_at,
            cancelling_at=row.cancelling_at,
            cancelled_at=row.cancelled_at,
            request_counts=RequestCounts(
                total=row.total, completed=row.completed, failed=row.failed
            ),
            usage=BatchUsage(
                input_tokens=row.input_tokens,
                input_tokens_details=InputTokensDetails(cached_tokens=row.cached_tokens),
                output_tokens=row.output_tokens,
                output_tokens_details=OutputTokensDetails(reasoning_tokens=row.reasoning_tokens),
                total_tokens=row.input_tokens + row.output_tokens,
            ),
            metadata=row.metadata_,
        )

    def _row(
        self, principal: Principal, activity: Activity, wanted: CreateBatch, key: str | None
    ) -> BatchRow:
        """The row of what is wanted, checked."""
        endpoint = endpoint_of(wanted.endpoint)
        if endpoint not in self._endpoints:
            raise _not_among("endpoint", wanted.endpoint, self._endpoints)
        if wanted.completion_window != _COMPLETION_WINDOW:
            raise _not_among("completion_window", wanted.completion_window, [_COMPLETION_WINDOW])
        metadata = None if wanted.metadata is None else check_metadata(wanted.metadata)
        made = sequence()
        lifetime = wanted.output_expires_after
        return BatchRow(
            id=new_id("batch_"),
            project=principal.project,
            principal=principal.stored(),
            sequence=made,
            endpoint=endpoint,
            input_file_id=wanted.input_file_id,
            completion_window=wanted.completion_window,
            expires_at=seconds(made) + self._settings.window_seconds,
            idempotency_key=key,
            fingerprint=_fingerprint(wanted, endpoint) if key is not None else None,
            metadata_=metadata,
            output_seconds=None if lifetime is None else lifetime.seconds,
            touched_at=seconds(made),
            traceparent=activity.traceparent(),
        )

    async def _earlier(self, row: BatchRow) -> BatchRow | None:
        """The batch that this one's key stands for. Raises ``FinalConflict``."""
        if row.idempotency_key is None:
            return None
        async with self._database.read() as session:
            found = await BatchRepository(session).find_by_key(row.project, row.idempotency_key)
        if found is not None and found.fingerprint != row.fingerprint:
            raise FinalConflict(
                f"Idempotency key '{row.idempotency_key}' was previously used with different "
                "parameters. Either use a new idempotency key or ensure all parameters match the "
                "original request.",
                param="idempotency_key",
            )
        return found

    async def _check_file(self, principal: Principal, file_id: str) -> None:
        try:
            file = await self._files.find(principal.project, file_id)
        except (NotFound, InvalidRequest) as error:
            raise type(error)(error.message, param="input_file_id") from None
        if file.purpose != "batch":
            raise InvalidRequest(
                f"The file {file_id} has the purpose '{file.purpose}'; a batch needs one with the "
                "purpose 'batch'.",
                param="input_file_id",
                code="invalid_value",
            )
        if file.bytes > self._settings.max_file_bytes:
            raise InvalidRequest(
                f"The file {file_id} has {file.bytes} bytes; the limit is "
                f"{self._settings.max_file_bytes}.",
                param="input_file_id",
                code="invalid_value",
            )


def _key(wanted: CreateBatch, header: str | None) -> str | None:
    key = wanted.idempotency_key
    if header is not None:
        if key is not None and key != header:
            raise InvalidRequest(
                "The header 'Idempotency-Key' and 'idempotency_key' differ; give one of them.",
                param="idempotency_key",
                code="invalid_value",
            )
        if not 0 < len(header) <= _LONGEST_KEY:
            raise InvalidRequest(
                f"The header 'Idempotency-Key' has 1 to {_LONGEST_KEY} characters.",
                param="idempotency_key",
                code="invalid_value",
            )
        key = header
    return check_text(key, "idempotency_key")


def _fingerprint(wanted: CreateBatch, endpoint: str) -> str:
    lifetime = wanted.output_expires_after
    said = [
        endpoint,
        wanted.input_file_id,
        wanted.completion_window,
        wanted.metadata,
        None if lifetime is None else lifetime.seconds,
    ]
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()


def _not_among(param: str, value: str, known: Collection[str]) -> InvalidRequest:
    words = ", ".join(f"'{one}'" for one in known)
    return InvalidRequest(
        f"Invalid value for '{param}': '{value}' is not one of {words}.",
        param=param,
        code="invalid_value",
    )


def _check_id(batch_id: str) -> None:
    if _ID.fullmatch(batch_id) is None:
        raise _unknown(batch_id[:100])


def _unknown(batch_id: str) -> NotFound:
    return NotFound(f"No batch found with id '{batch_id}'.", param="batch_id")
