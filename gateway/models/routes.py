"""``GET /v1/models`` and ``GET /v1/models/{model}``."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter

from gateway.identity.principal import Principal
from gateway.models.schemas import AnthropicModelList, ModelList, ModelObject
from gateway.models.service import ModelService

PREFIXES = ("/v1", "/v1/openai/v1")


def model_routes(service: ModelService) -> list[HTTPRouteHandler]:
    @get(
        [f"{prefix}/models" for prefix in PREFIXES],
        name="listModels",
        summary="List models",
        tags=["Models"],
    )
    async def list_models(
        request: Request[Any, Any, Any], principal: NamedDependency[Principal]
    ) -> ModelList | AnthropicModelList:
        if "anthropic-version" in request.headers:
            return service.list_for_anthropic(principal)
        return service.list(principal)

    @get(
        [f"{prefix}/models/{{model:path}}" for prefix in PREFIXES],
        name="retrieveModel",
        summary="Retrieve model",
        tags=["Models"],
    )
    async def retrieve_model(
        principal: NamedDependency[Principal],
        model: Annotated[str, PathParameter(description="Id or alias; may contain slashes.")],
    ) -> ModelObject:
        return service.get(principal, str(model).removeprefix("/"))

    return [list_models, retrieve_model]
