"""Vector stores: making, finding, changing and deleting them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import now, sequence
from gateway.database.paging import PageRequest
from gateway.database.tables import VectorStoreRow
from gateway.embeddings.embedder import Embedder
from gateway.errors import Conflict, GatewayError, InvalidRequest, UpstreamError
from gateway.http.pages import Page, page_of
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import JobQueue, VectorIndex
from gateway.profile import Profile
from gateway.routing.catalog import Model
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.properties import check_metadata, check_text
from gateway.vector_stores.repository import (
    SECONDS_PER_DAY,
    StoreRepository,
    StoreUsage,
    has_expired,
    index_of,
)
from gateway.vector_stores.schemas import (
    AttachFile,
    CreateVectorStore,
    Deleted,
    UpdateVectorStore,
    VectorStoreObject,
)
from gateway.vector_stores.shapes import OWN_METADATA, Shapes

__all__ = ["PROVIDER_ID", "VectorStoreService", "new_store_id"]

PROVIDER_ID = "milvus"
"""LlamaStack's name for what keeps a store's vectors, where the caller gives none."""


def new_store_id(profile: Profile, prefix: str = "vs_") -> str:
    """An id in the profile's form."""
    made = uuid.uuid4()
    return f"{prefix}{made}" if profile.dashed_store_ids else f"{prefix}{made.hex}"


class VectorStoreService:
    """A store's index is made before its row, so that a store that can be seen can be filled; a
    caller who gives up in between leaves an empty index, which the reaper finds.
    """

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        queue: JobQueue,
        embedder: Embedder,
        files: StoreFileService,
        shapes: Shapes,
        profile: Profile,
    ) -> None:
        self._database = database
        self._index = index
        self._queue = queue
        self._embedder = embedder
        self._files = files
        self._shapes = shapes
        self._profile = profile
        self._stores = StoreRepository()

    async def create(
        self, principal: Principal, activity: Activity, wanted: CreateVectorStore
    ) -> VectorStoreObject:
        """Raises ``InvalidRequest`` that names the parameter, ``Conflict`` where the id that is
        asked for is taken, the profile's error for an unknown file, and ``UpstreamError``.
        """
        row, model = self._row_of(principal, wanted)
        planned = self._files.plan(
            principal,
            [
                AttachFile(file_id=one, chunking_strategy=wanted.chunking_strategy)
                for one in wanted.file_ids or ()
            ],
            "file_ids",
        )
        row.dimension = await self._dimension(model, wanted)
        async with self._database.read() as session:
            await self._check_free(session, row.id)
            await self._files.check_uploaded(session, principal, planned)
        row.keyword = (await self._index.features()).keyword
        await self._index.create(index_of(row))
        try:
            async with self._database.begin() as session:
                await self._check_free(session, row.id)
                session.add(row)
                await session.flush()
                attached = await self._files.attach_all(
                    session, principal, row, planned, activity.traceparent()
                )
        except IntegrityError:
            raise _taken(row.id) from None
        if attached:
            self._queue.wake()
        return await self.get(principal, row.id)

    async def settled(self, principal: Principal, store_id: str) -> VectorStoreObject:
        """The store once its files are done, where the profile says that callers wait for that."""
        if self._profile.attach_waits:
            await self._files.wait_for_store(principal, store_id)
        return await self.get(principal, store_id)

    async def list(self, principal: Principal, page: PageRequest) -> Page[VectorStoreObject]:
        async with self._database.read() as session:
            rows = await self._stores.page(session, principal.project, page)
            usage = await self._stores.usage(session, principal.project, [row.id for row in rows])
        return page_of(
            rows,
            page,
            lambda row: self._shapes.store(row, usage[row.id]),
            empty=self._profile.empty_cursor,
        )

    async def get(self, principal: Principal, store_id: str) -> VectorStoreObject:
        """Raises the profile's error where it isn't there."""
        async with self._database.read() as session:
            row = await self._files.store(session, principal, store_id)
            return self._shapes.store(row, await self._usage(session, principal, store_id))

    async def update(
        self, principal: Principal, store_id: str, wanted: UpdateVectorStore
    ) -> VectorStoreObject:
        """What has expired stays so: its files may be gone already."""
        async with self._database.begin() as session:
            row = await self._files.store(session, principal, store_id, lock=True)
            if wanted.name is not UNSET:
                row.name = check_text(wanted.name, "name")
            if wanted.metadata is not UNSET:
                row.metadata_ = self._new_metadata(row, wanted.metadata or {})
            if wanted.expires_after is not UNSET:
                if has_expired(row):
                    raise InvalidRequest(
                        f"Vector store '{store_id}' has expired. Create a new one.",
                        param="expires_after",
                        code="vector_store_expired",
                    )
                days = wanted.expires_after.days if wanted.expires_after else None
                row.expires_after_days = days
            if not has_expired(row):
                _make_active(row)
            usage = await self._usage(session, principal, store_id)
        return self._shapes.store(row, usage)

    async def delete(self, principal: Principal, store_id: str) -> Deleted:
        """Gone for every reader at once; its vectors and rows are removed in the background."""
        async with self._database.begin() as session:
            if not await self._stores.delete(session, principal.project, store_id):
                raise self._files.no_store(store_id)
            payload = {"project": principal.project, "id": store_id}
            await self._queue.put(session, "delete_store", payload)
        self._queue.wake()
        return Deleted(id=store_id, object="vector_store.deleted")

    async def _usage(
        self, session: AsyncSession, principal: Principal, store_id: str
    ) -> StoreUsage:
        return (await self._stores.usage(session, principal.project, [store_id]))[store_id]

    def _row_of(
        self, principal: Principal, wanted: CreateVectorStore
    ) -> tuple[VectorStoreRow, Model]:
        """The row that is asked for, but for what only servers know, and its model."""
        metadata = dict(wanted.metadata or {})
        if isinstance(dimension := metadata.get("embedding_dimension"), int):
            metadata["embedding_dimension"] = str(dimension)  # LlamaStack's clients send either
        checked = check_metadata(metadata)
        model = self._model(principal, checked.get("embedding_model") or wanted.embedding_model)
        given = check_text(wanted.provider_id, "provider_id") or checked.get("provider_id")
        provider_id = given or PROVIDER_ID
        row = VectorStoreRow(
            id=wanted.provider_vector_store_id or new_store_id(self._profile),
            project=principal.project,
            sequence=sequence(),
            name=check_text(wanted.name, "name"),
            description=check_text(wanted.description, "description"),
            embedding_model=model.id,
            dimension=0,
            keyword=False,
            provider_id=provider_id[:120],
            last_active_at=now(),
            metadata_=checked,
            expires_after_days=wanted.expires_after.days if wanted.expires_after else None,
        )
        _make_active(row)
        return row, model

    def _model(self, principal: Principal, name: str | None) -> Model:
        try:
            return self._embedder.model(name, principal.models)
        except UpstreamError:
            raise
        except GatewayError as error:
            raise InvalidRequest(error.message, param="embedding_model", code=error.code) from None

    async def _dimension(self, model: Model, wanted: CreateVectorStore) -> int:
        """The model's, which is the one that is asked for, if one is."""
        actual = await self._embedder.dimension(model)
        asked = (wanted.metadata or {}).get("embedding_dimension") or wanted.embedding_dimension
        if asked is not None and str(asked) != str(actual):
            raise InvalidRequest(
                f"The embedding_model '{model.id}' makes vectors of dimension {actual}, not of "
                f"{asked}. Leave embedding_dimension out or name another model.",
                param="embedding_model",
                code="invalid_value",
            )
        return actual

    async def _check_free(self, session: AsyncSession, store_id: str) -> None:
        if await self._stores.holder(session, store_id) is not None:
            raise _taken(store_id)

    def _new_metadata(self, row: VectorStoreRow, given: Mapping[str, Any]) -> dict[str, str]:
        """What is to be stored; a client sends back what the profile added, unchanged."""
        kept, own = dict(given), self._shapes.own_metadata(row)
        for key in OWN_METADATA if own else ():
            if key in kept and str(kept.pop(key)) != own[key]:
                raise InvalidRequest(
                    f"'{key}' of a vector store can't be changed.",
                    param=f"metadata.{key}",
                    code="invalid_value",
                )
        return check_metadata(kept)


def _make_active(row: VectorStoreRow) -> None:
    row.last_active_at = now()
    days = row.expires_after_days
    row.expires_at = None if days is None else row.last_active_at + days * SECONDS_PER_DAY


def _taken(store_id: str) -> Conflict:
    return Conflict(
        f"The id '{store_id}' is taken, or belongs to a vector store that is still being deleted.",
        param="provider_vector_store_id",
        code="id_taken",
    )
