"""Rows as objects of the API, in the profile's way."""

from __future__ import annotations

from typing import Any, cast

from gateway.database.identifiers import now, seconds
from gateway.database.tables import FileBatchRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import ModelNotFound
from gateway.profile import Profile
from gateway.routing.catalog import Catalog
from gateway.vector_stores.repository import StoreUsage, has_expired
from gateway.vector_stores.schemas import (
    ExpiresAfter,
    FileBatchObject,
    FileCounts,
    FileStatus,
    LastError,
    VectorStoreFileObject,
    VectorStoreObject,
)

__all__ = ["OWN_METADATA", "Shapes", "poll_after_ms"]

OWN_METADATA = (
    "provider_id",
    "provider_vector_store_id",
    "embedding_model",
    "embedding_dimension",
)
"""The keys that LlamaStack adds to a store's metadata."""

_SOONEST_MS, _LATEST_MS = 200, 5000


class Shapes:
    """What a client sees of a store, of a file in it and of a batch."""

    def __init__(self, catalog: Catalog, profile: Profile) -> None:
        self._catalog = catalog
        self._profile = profile

    def store(self, row: VectorStoreRow, usage: StoreUsage) -> VectorStoreObject:
        days = row.expires_after_days
        busy = usage.counts.in_progress > 0
        return VectorStoreObject(
            id=row.id,
            created_at=seconds(row.sequence),
            name=row.name or "",
            description=row.description,
            usage_bytes=usage.bytes,
            file_counts=usage.counts,
            status="expired" if has_expired(row) else "in_progress" if busy else "completed",
            expires_after=ExpiresAfter(anchor="last_active_at", days=days) if days else None,
            expires_at=row.expires_at,
            last_active_at=row.last_active_at,
            metadata={**row.metadata_, **self.own_metadata(row)},
            embedding_model=self._model_name(row),
            embedding_dimension=row.dimension,
        )

    def own_metadata(self, row: VectorStoreRow) -> dict[str, str]:
        """What the profile adds to a store's metadata."""
        if not self._profile.store_metadata:
            return {}
        values = (row.provider_id, row.id, self._model_name(row), str(row.dimension))
        return dict(zip(OWN_METADATA, values, strict=True))

    def file(self, row: VectorStoreFileRow) -> VectorStoreFileObject:
        assert row.file_id is not None  # others are in no list
        error = None
        if row.error_code is not None:
            error = LastError(code=cast("Any", row.error_code), message=row.error_message or "")
        return VectorStoreFileObject(
            id=row.file_id,
            created_at=seconds(row.sequence),
            vector_store_id=row.store_id,
            status=cast("FileStatus", row.status),
            last_error=error,
            usage_bytes=row.usage_bytes,
            attributes=row.attributes,
            chunking_strategy=row.chunking,
        )

    def batch(self, row: FileBatchRow, counts: FileCounts) -> FileBatchObject:
        return FileBatchObject(
            id=row.id,
            created_at=seconds(row.sequence),
            vector_store_id=row.store_id,
            status=batch_status(row, counts),
            file_counts=counts,
        )

    def _model_name(self, row: VectorStoreRow) -> str:
        """As the profile lists the model; by its bare id where no server has it any more."""
        if self._profile.prefixed_model_ids:
            try:
                model = self._catalog.get(row.embedding_model)
            except ModelNotFound:
                return row.embedding_model
            if model.providers:
                return f"{model.providers[0]}/{row.embedding_model}"
        return row.embedding_model


def batch_status(row: FileBatchRow, counts: FileCounts) -> FileStatus:
    """Failed only if all of it failed: ``file_counts`` tells about single files."""
    if row.cancelled_at is not None:
        return "cancelled"
    if counts.in_progress:
        return "in_progress"
    return "failed" if counts.total and counts.failed == counts.total else "completed"


def poll_after_ms(created_at: int) -> int:
    """In how many milliseconds to ask again about work that began at this time, in seconds.

    What has just begun may be done soon; what has taken a minute isn't done in the next moment.
    """
    age_ms = (now() - created_at) * 1000
    return max(_SOONEST_MS, min(age_ms // 10, _LATEST_MS))
