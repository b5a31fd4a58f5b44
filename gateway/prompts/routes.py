"""``/v1/prompts``. What LlamaStack changes by PUT was POST before 0.5; either will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.prompts.schemas import (
    CreatePrompt,
    PromptList,
    PromptObject,
    SetDefaultVersion,
    UpdatePrompt,
)
from gateway.prompts.service import PromptService

__all__ = ["prompt_routes"]

PATHS = [f"{prefix}/prompts" for prefix in ("/v1", "/v1/openai/v1")]
ONE = [f"{path}/{{prompt_id:str}}" for path in PATHS]
TAGS = ("Prompts",)

Method = Callable[..., Callable[[Callable[..., Any]], HTTPRouteHandler]]
PromptId = Annotated[str, PathParameter(description="The prompt's id.")]
VERSION = QueryParameter(description="The default version when left out.")


def prompt_routes(service: PromptService) -> list[HTTPRouteHandler]:
    @get(PATHS, name="listPrompts", summary="List prompts, each in its default version", tags=TAGS)
    async def list_prompts(principal: NamedDependency[Principal]) -> PromptList:
        return await service.list(principal)

    @post(
        PATHS,
        name="createPrompt",
        summary="Create a prompt",
        tags=TAGS,
        status_code=200,
        opt={TAKES: CreatePrompt},
    )
    async def create_prompt(
        request: Request[Any, Any, Any], principal: NamedDependency[Principal]
    ) -> PromptObject:
        return await service.create(principal, await read_body(request, CreatePrompt))

    @get(ONE, name="getPrompt", summary="Retrieve a version of a prompt", tags=TAGS)
    async def get_prompt(
        principal: NamedDependency[Principal],
        prompt_id: PromptId,
        version: Annotated[int | None, VERSION] = None,
    ) -> PromptObject:
        return await service.retrieve(principal, prompt_id, version)

    @get(
        [f"{path}/versions" for path in ONE],
        name="listPromptVersions",
        summary="List the versions of a prompt",
        tags=TAGS,
    )
    async def list_versions(
        principal: NamedDependency[Principal], prompt_id: PromptId
    ) -> PromptList:
        return await service.versions(principal, prompt_id)

    @delete(
        ONE,
        name="deletePrompt",
        summary="Delete a prompt with all its versions",
        tags=TAGS,
        status_code=200,
    )
    async def delete_prompt(
        principal: NamedDependency[Principal], prompt_id: PromptId
    ) -> Response[None]:
        await service.delete(principal, prompt_id)
        return Response(None, status_code=200, media_type="text/plain")

    return [
        list_prompts,
        create_prompt,
        get_prompt,
        list_versions,
        delete_prompt,
        *(
            route
            for by, name in ((put, ""), (post, "ByPost"))
            for route in _changes(service, by, name)
        ),
    ]


def _operation_id(handler: HTTPRouteHandler, _: object, path: list[object]) -> str:
    """Other than Litestar's own, different for the two methods; the contract has its own ids."""
    return f"{handler.name}/{path}"


def _changes(service: PromptService, by: Method, suffix: str) -> list[HTTPRouteHandler]:
    """What changes a prompt, by this method."""

    @by(
        ONE,
        name=f"updatePrompt{suffix}",
        operation_id=_operation_id,
        summary="Make a new version of a prompt",
        tags=TAGS,
        status_code=200,
        opt={TAKES: UpdatePrompt},
    )
    async def update_prompt(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        prompt_id: PromptId,
    ) -> PromptObject:
        return await service.update(principal, prompt_id, await read_body(request, UpdatePrompt))

    @by(
        [f"{path}/set-default-version" for path in ONE],
        name=f"setPromptDefaultVersion{suffix}",
        operation_id=_operation_id,
        summary="Set the default version of a prompt",
        tags=TAGS,
        status_code=200,
        opt={TAKES: SetDefaultVersion},
    )
    async def set_default_version(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        prompt_id: PromptId,
    ) -> PromptObject:
        wanted = await read_body(request, SetDefaultVersion)
        return await service.set_default_version(principal, prompt_id, wanted)

    return [update_prompt, set_default_version]
