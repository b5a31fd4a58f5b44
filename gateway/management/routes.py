"""``/livez``, ``/readyz``, ``/metrics`` and LlamaStack's inspection routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from litestar import Litestar, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway import __version__
from gateway.management.schemas import (
    Health,
    Provider,
    ProviderList,
    Readiness,
    Route,
    RouteList,
    Version,
)
from gateway.management.service import ManagementService
from gateway.observability.metrics import CONTENT_TYPE, Metrics

PREFIXES = ("/v1", "/v1alpha/admin")
ApiFilter = Literal["v1", "v1alpha", "v1beta", "deprecated"]


def probe_routes(service: ManagementService, metrics: Metrics) -> list[HTTPRouteHandler]:
    """What belongs on the management port, where there is one."""

    @get("/livez", tags=["Management"], name="livez", summary="Is the process alive?")
    async def livez() -> Health:
        return Health("OK")

    @get("/readyz", tags=["Management"], name="readyz", summary="May it get requests?")
    async def readyz() -> Readiness:
        return await service.readiness()

    @get(
        "/metrics",
        tags=["Management"],
        name="metrics",
        summary="Metrics for Prometheus",
        media_type="text/plain",
    )
    async def get_metrics() -> Response[bytes]:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return [livez, readyz, get_metrics]


def inspection_routes(service: ManagementService) -> list[HTTPRouteHandler]:
    """What LlamaStack offers to look at a server."""

    @get(_paths("/health"), tags=["Inspect"], name="health", summary="Health")
    async def health() -> Health:
        return Health("OK")

    @get(_paths("/version"), tags=["Inspect"], name="version", summary="Version")
    async def version() -> Version:
        return Version(__version__)

    @get(_paths("/providers"), tags=["Inspect"], name="listProviders", summary="Providers")
    async def providers() -> ProviderList:
        return ProviderList(service.providers())

    @get(
        _paths("/providers/{provider_id:str}"),
        tags=["Inspect"],
        name="retrieveProvider",
        summary="One provider",
    )
    async def provider(provider_id: Annotated[str, PathParameter()]) -> Provider:
        return service.provider(provider_id)

    @get(_paths("/inspect/routes"), tags=["Inspect"], name="listRoutes", summary="Routes")
    async def routes(
        request: Request[Any, Any, Any],
        api_filter: Annotated[ApiFilter | None, QueryParameter()] = None,
    ) -> RouteList:
        return RouteList(_routes(request.app, api_filter))

    return [health, version, providers, provider, routes]


def _paths(path: str) -> list[str]:
    return [prefix + path for prefix in PREFIXES]


def _routes(app: Litestar, api_filter: ApiFilter | None) -> list[Route]:
    prefix = f"/{api_filter}/" if api_filter and api_filter != "deprecated" else "/"
    return [
        Route(route.path_format, method, ["remote::vllm"])
        for route in sorted(app.routes, key=lambda route: route.path)
        if route.path.startswith(prefix) and api_filter != "deprecated"
        for method in sorted(route.methods - {"OPTIONS", "HEAD"})
    ]
