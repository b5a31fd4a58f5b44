"""``/v1/uploads``: create, add parts, complete, cancel."""

from __future__ import annotations

from typing import Annotated, Any, cast

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter

from gateway.http.asgi import Receive
from gateway.http.disconnect import Departure
from gateway.http.intake import TAKES_FORM, FormIntake
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.uploads.schemas import (
    PART_FORM,
    CompleteUpload,
    CreateUpload,
    PartObject,
    UploadObject,
)
from gateway.uploads.service import UploadService

PREFIXES = ("/v1", "/v1/openai/v1")

UploadId = Annotated[str, PathParameter(description="The upload's id.")]


def upload_routes(service: UploadService, intake: FormIntake) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/uploads" for prefix in PREFIXES],
        status_code=200,
        name="createUpload",
        summary="Begin to upload a file in parts",
        tags=["Uploads"],
        opt={TAKES: CreateUpload},
    )
    async def create_upload(
        request: Request[Any, Any, Any], principal: NamedDependency[Principal]
    ) -> UploadObject:
        return await service.create(principal, await read_body(request, CreateUpload))

    @post(
        [f"{prefix}/uploads/{{upload_id:str}}/parts" for prefix in PREFIXES],
        status_code=200,
        name="addUploadPart",
        summary="Upload a part of up to 64 MB",
        tags=["Uploads"],
        opt={TAKES_FORM: PART_FORM},
    )
    async def add_upload_part(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        upload_id: UploadId,
    ) -> Response[PartObject]:
        return await intake.take(
            request,
            service.limit,
            lambda form: service.add_part(principal, upload_id, form, activity),
        )

    @post(
        [f"{prefix}/uploads/{{upload_id:str}}/complete" for prefix in PREFIXES],
        status_code=200,
        name="completeUpload",
        summary="Put the parts together",
        tags=["Uploads"],
        opt={TAKES: CompleteUpload},
    )
    async def complete_upload(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        upload_id: UploadId,
    ) -> UploadObject:
        body = await read_body(request, CompleteUpload)
        with Departure(cast("Receive", request.receive)):
            return await service.complete(principal, upload_id, body, activity)

    @post(
        [f"{prefix}/uploads/{{upload_id:str}}/cancel" for prefix in PREFIXES],
        status_code=200,
        name="cancelUpload",
        summary="Cancel an upload",
        tags=["Uploads"],
    )
    async def cancel_upload(
        principal: NamedDependency[Principal], upload_id: UploadId
    ) -> UploadObject:
        return await service.cancel(principal, upload_id)

    return [create_upload, add_upload_part, complete_upload, cancel_upload]
