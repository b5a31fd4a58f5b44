"""``POST /v1/vector_stores/{id}/search``, LlamaStack's ``/v1/vector-io/query``, and the text of a
file in a store.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.content import ContentService
from gateway.vector_stores.search import SearchService
from gateway.vector_stores.search_schemas import (
    QueryAnswer,
    QueryRequest,
    SearchPage,
    SearchRequest,
)

__all__ = ["search_routes"]

PREFIXES = ("/v1", "/v1/openai/v1")
MAX_BODY_BYTES = 1024 * 1024

StoreId = Annotated[str, PathParameter(description="Id of the vector store.")]
FileId = Annotated[str, PathParameter(description="Id of the file.")]


def search_routes(search: SearchService, content: ContentService) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/vector_stores/{{vector_store_id:str}}/search" for prefix in PREFIXES],
        name="searchVectorStore",
        summary="Search vector store",
        tags=["Vector stores"],
        status_code=200,
        opt={TAKES: SearchRequest},
    )
    async def search_vector_store(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        vector_store_id: StoreId,
    ) -> SearchPage:
        asked = await read_body(request, SearchRequest, MAX_BODY_BYTES)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await search.search(principal, activity, vector_store_id, asked)

    @post(
        [f"{prefix}/vector-io/query" for prefix in PREFIXES],
        name="queryChunks",
        summary="Query chunks of a vector store (LlamaStack)",
        tags=["Vector stores"],
        status_code=200,
        opt={TAKES: QueryRequest},
    )
    async def query_chunks(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> QueryAnswer:
        asked = await read_body(request, QueryRequest, MAX_BODY_BYTES)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await search.query(principal, activity, asked)

    @get(
        [
            f"{prefix}/vector_stores/{{vector_store_id:str}}/files/{{file_id:str}}/content"
            for prefix in PREFIXES
        ],
        name="retrieveVectorStoreFileContent",
        summary="Retrieve vector store file content",
        tags=["Vector stores"],
        media_type="application/json",
    )
    async def file_content(
        principal: NamedDependency[Principal],
        vector_store_id: StoreId,
        file_id: FileId,
        *,
        include_embeddings: Annotated[
            bool, QueryParameter(description="Add each chunk's vector.")
        ] = False,
        include_metadata: Annotated[
            bool, QueryParameter(description="Add where each chunk is from.")
        ] = False,
    ) -> Stream:
        blocks = await content.read(
            principal,
            vector_store_id,
            file_id,
            include_embeddings=include_embeddings,
            include_metadata=include_metadata,
        )
        return Stream(blocks, media_type="application/json")

    return [search_vector_store, query_chunks, file_content]
