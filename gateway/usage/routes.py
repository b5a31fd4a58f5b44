"""``/v1/usage``: what was used."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from gateway.errors import InvalidRequest
from gateway.http.export import exported, wants_csv
from gateway.identity.principal import Principal
from gateway.usage.schemas import UsagePage
from gateway.usage.service import UsageQuery, UsageService

__all__ = ["usage_routes"]

PATHS = [f"{prefix}/usage" for prefix in ("/v1", "/v1/openai/v1")]

Seconds = Annotated[int | None, QueryParameter(description="Seconds since the epoch.")]
Names = Annotated[list[str] | None, QueryParameter(description="Only of these; may be repeated.")]


def usage_routes(service: UsageService) -> list[HTTPRouteHandler]:
    @get(PATHS, name="getUsage", summary="Read what was used", tags=["Usage"])
    async def get_usage(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        *,
        start_time: Seconds = None,
        end_time: Seconds = None,
        bucket_width: Annotated[str, QueryParameter(description="1h or 1d.")] = "1d",
        group_by: Annotated[
            list[str] | None,
            QueryParameter(description="project_id, api_key_id, model, operation; repeated."),
        ] = None,
        project_ids: Names = None,
        api_key_ids: Names = None,
        models: Names = None,
        limit: Annotated[int | None, QueryParameter(description="Buckets on a page.")] = None,
        page: Annotated[str | None, QueryParameter(description="The next_page.")] = None,
        export_format: Annotated[
            str | None, QueryParameter(name="format", description="json, or all of it as csv.")
        ] = None,
    ) -> Response[UsagePage]:
        query = UsageQuery(
            start_time=start_time,
            end_time=end_time,
            bucket_width=bucket_width,
            group_by=_names(request, "group_by", group_by),
            project_ids=_names(request, "project_ids", project_ids),
            api_key_ids=_names(request, "api_key_ids", api_key_ids),
            models=_names(request, "models", models),
            limit=limit,
            page=page,
        )
        if _format(export_format, request.headers.get("accept", "")) == "csv":
            return exported(service.csv(principal, query), "csv", "usage")  # type: ignore[return-value]  # its annotation is what the contract says
        return Response(await service.page(principal, query))

    return [get_usage]


def _names(request: Request[Any, Any, Any], name: str, plain: list[str] | None) -> list[str]:
    """In any of the ways that clients write lists in a query."""
    given = [*(plain or ()), *request.query_params.getall(f"{name}[]", [])]
    found = [part for one in given for part in one.split(",")]
    if any("\x00" in one for one in found):  # which PostgreSQL can't even look for
        raise InvalidRequest(
            f"Invalid '{name}': no value has a NUL in it.", param=name, code="invalid_value"
        )
    return found


def _format(asked: str | None, accept: str) -> str:
    if asked is None:
        return "csv" if wants_csv(accept) else "json"
    if asked not in ("json", "csv"):
        raise InvalidRequest(
            "Invalid value for 'format': expected 'json' or 'csv'.",
            param="format",
            code="invalid_value",
        )
    return asked
