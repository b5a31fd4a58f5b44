"""``/v1/vector_stores/{id}/files``."""

from __future__ import annotations

from typing import Annotated, Any, cast, get_args

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.errors import InvalidRequest
from gateway.http.disconnect import Departure
from gateway.http.pages import Page, page_request
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.routes import AFTER, BEFORE, LIMIT, ORDER, PREFIXES, StoreId, answer
from gateway.vector_stores.schemas import (
    AttachFile,
    Deleted,
    FileStatus,
    UpdateStoreFile,
    VectorStoreFileObject,
)

__all__ = ["FILTER", "status_filter", "store_file_routes"]

TAGS = ("Vector stores",)
FileId = Annotated[str, PathParameter(description="The id of the file.")]
FILTER = QueryParameter(
    name="filter", description="Only in_progress, completed, failed or cancelled files."
)


def status_filter(given: str | None) -> FileStatus | None:
    """Raises ``InvalidRequest`` where it is no state of a file."""
    if given is not None and given not in get_args(FileStatus):
        raise InvalidRequest(
            f"Invalid value: '{given}'. Supported values are: 'in_progress', 'completed', "
            "'failed' and 'cancelled'.",
            param="filter",
            code="invalid_value",
        )
    return cast("FileStatus | None", given)


def store_file_routes(service: StoreFileService) -> list[HTTPRouteHandler]:
    files = "/vector_stores/{vector_store_id:str}/files"

    @post(
        [prefix + files for prefix in PREFIXES],
        name="createVectorStoreFile",
        summary="Create vector store file",
        tags=TAGS,
        status_code=200,
        opt={TAKES: AttachFile},
    )
    async def create_vector_store_file(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        vector_store_id: StoreId,
    ) -> Response[VectorStoreFileObject]:
        wanted = await read_body(request, AttachFile)
        attachment_id = await service.attach(principal, activity, vector_store_id, wanted)
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            shown = await service.settled(principal, vector_store_id, wanted.file_id, attachment_id)
        return answer(shown)

    @get(
        [prefix + files for prefix in PREFIXES],
        name="listVectorStoreFiles",
        summary="List vector store files",
        tags=TAGS,
    )
    async def list_vector_store_files(
        principal: NamedDependency[Principal],
        vector_store_id: StoreId,
        limit: Annotated[int | None, LIMIT] = None,
        order: Annotated[str | None, ORDER] = None,
        after: Annotated[str | None, AFTER] = None,
        before: Annotated[str | None, BEFORE] = None,
        status: Annotated[str | None, FILTER] = None,
    ) -> Page[VectorStoreFileObject]:
        page = page_request(limit=limit, order=order, after=after, before=before)
        return await service.list(principal, vector_store_id, page, status_filter(status))

    @get(
        [f"{prefix}{files}/{{file_id:str}}" for prefix in PREFIXES],
        name="getVectorStoreFile",
        summary="Retrieve vector store file",
        tags=TAGS,
    )
    async def get_vector_store_file(
        principal: NamedDependency[Principal], vector_store_id: StoreId, file_id: FileId
    ) -> Response[VectorStoreFileObject]:
        return answer(await service.get(principal, vector_store_id, file_id))

    @post(
        [f"{prefix}{files}/{{file_id:str}}" for prefix in PREFIXES],
        name="updateVectorStoreFileAttributes",
        summary="Update vector store file attributes",
        tags=TAGS,
        status_code=200,
        opt={TAKES: UpdateStoreFile},
    )
    async def update_vector_store_file_attributes(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        vector_store_id: StoreId,
        file_id: FileId,
    ) -> Response[VectorStoreFileObject]:
        wanted = await read_body(request, UpdateStoreFile)
        return answer(await service.update(principal, vector_store_id, file_id, wanted))

    @delete(
        [f"{prefix}{files}/{{file_id:str}}" for prefix in PREFIXES],
        name="deleteVectorStoreFile",
        summary="Delete vector store file",
        tags=TAGS,
        status_code=200,
    )
    async def delete_vector_store_file(
        principal: NamedDependency[Principal], vector_store_id: StoreId, file_id: FileId
    ) -> Deleted:
        return await service.detach(principal, vector_store_id, file_id)

    return [
        create_vector_store_file,
        list_vector_store_files,
        get_vector_store_file,
        update_vector_store_file_attributes,
        delete_vector_store_file,
    ]
