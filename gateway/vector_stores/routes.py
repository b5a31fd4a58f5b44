"""``/v1/vector_stores``."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.http.disconnect import Departure
from gateway.http.pages import Page, page_request
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.schemas import (
    CreateVectorStore,
    Deleted,
    FileBatchObject,
    UpdateVectorStore,
    VectorStoreFileObject,
    VectorStoreObject,
)
from gateway.vector_stores.service import VectorStoreService
from gateway.vector_stores.shapes import poll_after_ms

__all__ = [
    "AFTER",
    "BEFORE",
    "LIMIT",
    "ORDER",
    "PREFIXES",
    "StoreId",
    "answer",
    "vector_store_routes",
]

PREFIXES = ("/v1", "/v1/openai/v1")
TAGS = ("Vector stores",)
StoreId = Annotated[str, PathParameter(description="The id of the vector store.")]
LIMIT = QueryParameter(description="How many objects, 1 to 100; 20 when left out.")
ORDER = QueryParameter(description="By the time of making: asc, or desc when left out.")
AFTER = QueryParameter(description="The id of the object that the page follows.")
BEFORE = QueryParameter(description="The id of the object that the page ends before.")
_WATCHED_STORE_MS = 1000


def answer(shown: Any) -> Response[Any]:
    """The object; while it is in progress, with the time after which to look again."""
    headers = {}
    if shown.status == "in_progress":
        timed = isinstance(shown, VectorStoreFileObject | FileBatchObject)
        wait = poll_after_ms(shown.created_at) if timed else _WATCHED_STORE_MS
        headers["openai-poll-after-ms"] = str(wait)
    return Response(shown, headers=headers)


def vector_store_routes(service: VectorStoreService) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/vector_stores" for prefix in PREFIXES],
        name="createVectorStore",
        summary="Create vector store",
        tags=TAGS,
        status_code=200,
        opt={TAKES: CreateVectorStore},
    )
    async def create_vector_store(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[VectorStoreObject]:
        wanted = await read_body(request, CreateVectorStore)
        shown = await service.create(principal, activity, wanted)
        if shown.status == "in_progress":
            with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
                shown = await service.settled(principal, shown.id)
        return answer(shown)

    @get(
        [f"{prefix}/vector_stores" for prefix in PREFIXES],
        name="listVectorStores",
        summary="List vector stores",
        tags=TAGS,
    )
    async def list_vector_stores(
        principal: NamedDependency[Principal],
        limit: Annotated[int | None, LIMIT] = None,
        order: Annotated[str | None, ORDER] = None,
        after: Annotated[str | None, AFTER] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> Page[VectorStoreObject]:
        page = page_request(limit=limit, order=order, after=after, before=before)
        return await service.list(principal, page)

    @get(
        [f"{prefix}/vector_stores/{{vector_store_id:str}}" for prefix in PREFIXES],
        name="getVectorStore",
        summary="Retrieve vector store",
        tags=TAGS,
    )
    async def get_vector_store(
        principal: NamedDependency[Principal], vector_store_id: StoreId
    ) -> Response[VectorStoreObject]:
        return answer(await service.get(principal, vector_store_id))

    @post(
        [f"{prefix}/vector_stores/{{vector_store_id:str}}" for prefix in PREFIXES],
        name="modifyVectorStore",
        summary="Modify vector store",
        tags=TAGS,
        status_code=200,
        opt={TAKES: UpdateVectorStore},
    )
    async def modify_vector_store(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        vector_store_id: StoreId,
    ) -> Response[VectorStoreObject]:
        wanted = await read_body(request, UpdateVectorStore)
        return answer(await service.update(principal, vector_store_id, wanted))

    @delete(
        [f"{prefix}/vector_stores/{{vector_store_id:str}}" for prefix in PREFIXES],
        name="deleteVectorStore",
        summary="Delete vector store",
        tags=TAGS,
        status_code=200,
    )
    async def delete_vector_store(
        principal: NamedDependency[Principal], vector_store_id: StoreId
    ) -> Deleted:
        return await service.delete(principal, vector_store_id)

    return [
        create_vector_store,
        list_vector_stores,
        get_vector_store,
        modify_vector_store,
        delete_vector_store,
    ]
