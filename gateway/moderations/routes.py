"""``POST /v1/moderations``."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.moderations.schemas import CreateModeration, ModerationObject
from gateway.moderations.service import ModerationService
from gateway.observability.activity import Activity

PREFIXES = ("/v1", "/v1/openai/v1")


def moderation_routes(service: ModerationService, max_body_bytes: int) -> list[HTTPRouteHandler]:
    @post(
        [f"{prefix}/moderations" for prefix in PREFIXES],
        status_code=200,
        name="createModeration",
        summary="Judge whether texts and images are harmful",
        tags=["Moderations"],
        opt={TAKES: CreateModeration},
    )
    async def create_moderation(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> ModerationObject:
        wanted = await read_body(request, CreateModeration, max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            return await service.create(principal, activity, wanted)

    return [create_moderation]
