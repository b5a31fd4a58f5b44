"""``/v1/vector_stores/{id}/file_batches``."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter

from gateway.http.pages import Page, page_request
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.batch_service import FileBatchService
from gateway.vector_stores.file_routes import FILTER, status_filter
from gateway.vector_stores.routes import AFTER, BEFORE, LIMIT, ORDER, PREFIXES, StoreId, answer
from gateway.vector_stores.schemas import (
    CreateFileBatch,
    FileBatchObject,
    VectorStoreFileObject,
)

__all__ = ["file_batch_routes"]

TAGS = ("Vector stores",)
BatchId = Annotated[str, PathParameter(description="The id of the batch of files.")]


def file_batch_routes(service: FileBatchService) -> list[HTTPRouteHandler]:
    batches = "/vector_stores/{vector_store_id:str}/file_batches"
    batch = f"{batches}/{{batch_id:str}}"

    @post(
        [prefix + batches for prefix in PREFIXES],
        name="createVectorStoreFileBatch",
        summary="Create vector store file batch",
        tags=TAGS,
        status_code=200,
        opt={TAKES: CreateFileBatch},
    )
    async def create_vector_store_file_batch(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        vector_store_id: StoreId,
    ) -> Response[FileBatchObject]:
        wanted = await read_body(request, CreateFileBatch)
        return answer(await service.create(principal, activity, vector_store_id, wanted))

    @get(
        [prefix + batch for prefix in PREFIXES],
        name="getVectorStoreFileBatch",
        summary="Retrieve vector store file batch",
        tags=TAGS,
    )
    async def get_vector_store_file_batch(
        principal: NamedDependency[Principal], vector_store_id: StoreId, batch_id: BatchId
    ) -> Response[FileBatchObject]:
        return answer(await service.get(principal, vector_store_id, batch_id))

    @post(
        [f"{prefix}{batch}/cancel" for prefix in PREFIXES],
        name="cancelVectorStoreFileBatch",
        summary="Cancel vector store file batch",
        tags=TAGS,
        status_code=200,
    )
    async def cancel_vector_store_file_batch(
        principal: NamedDependency[Principal], vector_store_id: StoreId, batch_id: BatchId
    ) -> Response[FileBatchObject]:
        return answer(await service.cancel(principal, vector_store_id, batch_id))

    @get(
        [f"{prefix}{batch}/files" for prefix in PREFIXES],
        name="listFilesInVectorStoreBatch",
        summary="List vector store files in a batch",
        tags=TAGS,
    )
    async def list_files_in_vector_store_batch(
        principal: NamedDependency[Principal],
        vector_store_id: StoreId,
        batch_id: BatchId,
        limit: Annotated[int | None, LIMIT] = None,
        order: Annotated[str | None, ORDER] = None,
        after: Annotated[str | None, AFTER] = None,
        before: Annotated[str | None, BEFORE] = None,
        status: Annotated[str | None, FILTER] = None,
    ) -> Page[VectorStoreFileObject]:
        page = page_request(limit=limit, order=order, after=after, before=before)
        chosen = status_filter(status)
        return await service.list_files(principal, vector_store_id, batch_id, page, chosen)

    return [
        create_vector_store_file_batch,
        get_vector_store_file_batch,
        cancel_vector_store_file_batch,
        list_files_in_vector_store_batch,
    ]
