"""``/v1/files``: create, list, retrieve, delete, content."""

from __future__ import annotations

from typing import Annotated, Any, cast

from litestar import Request, Response, delete, get, head, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter
from litestar.types import ASGIApp

from gateway.files.schemas import FILE_FORM, DeletedFile, FileObject
from gateway.files.service import FileService
from gateway.http.answered_by import AnsweredBy
from gateway.http.download import Download
from gateway.http.intake import TAKES_FORM, FormIntake
from gateway.http.pages import Page
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity

PREFIXES = ("/v1", "/v1/openai/v1")

CONTENT = ResponseSpec(
    data_container=bytes,
    media_type="application/octet-stream",
    description="The content, or the range of it that was asked for.",
    generate_examples=False,
)

FileId = Annotated[str, PathParameter(description="The file's id.")]


def file_routes(service: FileService, intake: FormIntake) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/files" for prefix in PREFIXES],
        status_code=200,
        name="createFile",
        summary="Upload a file",
        tags=["Files"],
        opt={TAKES_FORM: FILE_FORM},
    )
    async def create_file(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[FileObject]:
        return await intake.take(
            request, service.limit, lambda form: service.create(principal, form, activity)
        )

    @get(
        [f"{prefix}/files" for prefix in PREFIXES],
        name="listFiles",
        summary="List files",
        tags=["Files"],
    )
    async def list_files(
        principal: NamedDependency[Principal],
        purpose: Annotated[str | None, QueryParameter(description="Only of this purpose.")] = None,
        limit: Annotated[int | None, QueryParameter(description="1 to 10000.")] = None,
        order: Annotated[str | None, QueryParameter(description="asc or desc.")] = None,
        after: Annotated[str | None, QueryParameter(description="The id before the page.")] = None,
        before: Annotated[str | None, QueryParameter(description="The id behind it.")] = None,
    ) -> Page[FileObject]:
        return await service.list(
            principal, purpose=purpose, limit=limit, order=order, after=after, before=before
        )

    @get(
        [f"{prefix}/files/{{file_id:str}}" for prefix in PREFIXES],
        name="retrieveFile",
        summary="Retrieve a file",
        tags=["Files"],
    )
    async def retrieve_file(principal: NamedDependency[Principal], file_id: FileId) -> FileObject:
        return await service.retrieve(principal, file_id)

    @delete(
        [f"{prefix}/files/{{file_id:str}}" for prefix in PREFIXES],
        status_code=200,
        name="deleteFile",
        summary="Delete a file, from every vector store too",
        tags=["Files"],
    )
    async def delete_file(principal: NamedDependency[Principal], file_id: FileId) -> DeletedFile:
        return await service.delete(principal, file_id)

    @get(
        [f"{prefix}/files/{{file_id:str}}/content" for prefix in PREFIXES],
        name="downloadFile",
        summary="Download a file's content",
        tags=["Files"],
        responses={200: CONTENT},
    )
    async def download_file(principal: NamedDependency[Principal], file_id: FileId) -> ASGIApp:
        return cast("ASGIApp", Download(await service.content(principal, file_id)))

    @head(
        [f"{prefix}/files/{{file_id:str}}/content" for prefix in PREFIXES],
        name="measureFile",
        summary="The headers of a file's content",
        tags=["Files"],
    )
    async def measure_file(
        principal: NamedDependency[Principal], file_id: FileId
    ) -> Response[None]:
        return AnsweredBy(Download(await service.content(principal, file_id)))

    return [create_file, list_files, retrieve_file, delete_file, download_file, measure_file]
