"""``/v1/shields`` and ``POST /v1/safety/run-shield``, which are LlamaStack's."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter

from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.shields.schemas import (
    RegisterShield,
    RunShield,
    RunShieldResponse,
    ShieldList,
    ShieldObject,
)
from gateway.shields.service import ShieldService

TAGS = ["Shields"]

Identifier = Annotated[str, PathParameter(description="The shield's id; may contain slashes.")]


def shield_routes(service: ShieldService, max_body_bytes: int) -> list[HTTPRouteHandler]:
    @get("/v1/shields", name="listShields", summary="List shields (LlamaStack)", tags=TAGS)
    async def list_shields(principal: NamedDependency[Principal]) -> ShieldList:
        return await service.list(principal)

    @post(
        "/v1/shields",
        status_code=200,
        name="registerShield",
        summary="Register a shield (LlamaStack)",
        tags=TAGS,
        opt={TAKES: RegisterShield},
    )
    async def register_shield(
        request: Request[Any, Any, Any], principal: NamedDependency[Principal]
    ) -> ShieldObject:
        return await service.register(principal, await read_body(request, RegisterShield))

    @get(
        "/v1/shields/{identifier:path}",
        name="getShield",
        summary="Retrieve a shield (LlamaStack)",
        tags=TAGS,
    )
    async def get_shield(
        principal: NamedDependency[Principal], identifier: Identifier
    ) -> ShieldObject:
        return await service.get(principal, str(identifier).removeprefix("/"))

    @delete(
        "/v1/shields/{identifier:path}",
        status_code=204,
        name="unregisterShield",
        summary="Unregister a shield (LlamaStack)",
        tags=TAGS,
    )
    async def unregister_shield(
        principal: NamedDependency[Principal], identifier: Identifier
    ) -> None:
        await service.delete(principal, str(identifier).removeprefix("/"))

    @post(
        "/v1/safety/run-shield",
        status_code=200,
        name="runShield",
        summary="Judge messages by a shield (LlamaStack)",
        tags=TAGS,
        opt={TAKES: RunShield},
    )
    async def run_shield(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> RunShieldResponse:
        wanted = await read_body(request, RunShield, max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            return await service.run(principal, activity, wanted)

    return [list_shields, register_shield, get_shield, unregister_shield, run_shield]
