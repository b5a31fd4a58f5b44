"""``POST /v1/vector-io/insert``."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.insert_schemas import InsertChunks
from gateway.vector_stores.insertion import ChunkInsertion

__all__ = ["insert_routes"]


def insert_routes(insertion: ChunkInsertion, max_body_bytes: int) -> list[HTTPRouteHandler]:
    @post(
        "/v1/vector-io/insert",
        name="insertChunks",
        summary="Insert chunks",
        tags=["Vector IO"],
        status_code=200,
        opt={TAKES: InsertChunks},
    )
    async def insert_chunks(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[bytes]:
        wanted = await read_body(request, InsertChunks, max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            await insertion.insert(principal, activity, wanted)
        return Response(b"null", media_type="application/json")

    return [insert_chunks]
