"""``POST /v1alpha/file-processors/process``."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from gateway.file_processors.schemas import PROCESS_FORM, ProcessedFile
from gateway.file_processors.service import FileProcessor
from gateway.http.disconnect import Departure
from gateway.http.intake import TAKES_FORM, FormIntake
from gateway.http.multipart import FormReader
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity


def file_processor_routes(service: FileProcessor, intake: FormIntake) -> list[HTTPRouteHandler]:
    @post(
        "/v1alpha/file-processors/process",
        status_code=200,
        name="processFile",
        summary="Convert and chunk a file (LlamaStack)",
        tags=["Files"],
        opt={TAKES_FORM: PROCESS_FORM},
    )
    async def process_file(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[ProcessedFile]:
        async def process(form: FormReader) -> ProcessedFile:
            presence = Departure(request.receive)  # type: ignore[arg-type]
            return await service.process(principal, activity, form, presence)

        return await intake.take(request, service.limit, process)

    return [process_file]
