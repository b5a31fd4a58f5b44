"""``/v1/batches``: create, list, retrieve, cancel."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.batches.schemas import OVER, BatchObject, CreateBatch
from gateway.batches.service import BatchService
from gateway.http.pages import Page
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.shapes import poll_after_ms

__all__ = ["batch_routes"]

PREFIXES = ("/v1", "/v1/openai/v1")
TAGS = ("Batches",)
BatchId = Annotated[str, PathParameter(description="The batch's id.")]


def batch_routes(service: BatchService) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/batches" for prefix in PREFIXES],
        status_code=200,
        name="createBatch",
        summary="Create a batch of the requests in a file",
        tags=TAGS,
        opt={TAKES: CreateBatch},
    )
    async def create_batch(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[BatchObject]:
        wanted = await read_body(request, CreateBatch)
        key = request.headers.get("idempotency-key")
        return _answer(await service.create(principal, activity, wanted, key))

    @get(
        [f"{prefix}/batches" for prefix in PREFIXES],
        name="listBatches",
        summary="List batches",
        tags=TAGS,
    )
    async def list_batches(
        principal: NamedDependency[Principal],
        limit: Annotated[int | None, QueryParameter(description="1 to 100.")] = None,
        after: Annotated[str | None, QueryParameter(description="The id before the page.")] = None,
    ) -> Page[BatchObject]:
        return await service.list(principal, limit=limit, after=after)

    @get(
        [f"{prefix}/batches/{{batch_id:str}}" for prefix in PREFIXES],
        name="retrieveBatch",
        summary="Retrieve a batch",
        tags=TAGS,
    )
    async def retrieve_batch(
        principal: NamedDependency[Principal], batch_id: BatchId
    ) -> Response[BatchObject]:
        return _answer(await service.retrieve(principal, batch_id))

    @post(
        [f"{prefix}/batches/{{batch_id:str}}/cancel" for prefix in PREFIXES],
        status_code=200,
        name="cancelBatch",
        summary="Cancel a batch; what is done stays",
        tags=TAGS,
    )
    async def cancel_batch(
        principal: NamedDependency[Principal], batch_id: BatchId
    ) -> Response[BatchObject]:
        return _answer(await service.cancel(principal, batch_id))

    return [create_batch, list_batches, retrieve_batch, cancel_batch]


def _answer(batch: BatchObject) -> Response[BatchObject]:
    """The batch; until it is over, with the time after which to look again."""
    headers = {}
    if batch.status not in OVER:
        headers["openai-poll-after-ms"] = str(poll_after_ms(batch.created_at))
    return Response(batch, headers=headers)
