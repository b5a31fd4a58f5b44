"""``/v1/audit``: who changed what."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from gateway.audit.entry import AuditEntry
from gateway.audit.repository import AuditFilter
from gateway.audit.service import AuditLog, visible
from gateway.errors import InvalidRequest
from gateway.http.export import exported, wants_csv
from gateway.http.pages import Page, page_request
from gateway.identity.principal import Principal

__all__ = ["audit_routes"]

PATHS = [f"{prefix}/audit" for prefix in ("/v1", "/v1/openai/v1")]
_LATEST = 2**40
_FORMATS = ("json", "csv", "jsonl")

Text = Annotated[str | None, QueryParameter(description="Only entries with this value.")]
Seconds = Annotated[int | None, QueryParameter(description="Seconds since the epoch.")]


def audit_routes(log: AuditLog) -> list[HTTPRouteHandler]:
    @get(PATHS, name="listAuditEntries", summary="List changes", tags=["Audit"])
    async def list_entries(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        *,
        project_id: Text = None,
        action: Text = None,
        object_id: Text = None,
        subject: Text = None,
        api_key_id: Text = None,
        start_time: Seconds = None,
        end_time: Seconds = None,
        limit: Annotated[int | None, QueryParameter(description="1 to 100.")] = None,
        order: Annotated[str | None, QueryParameter(description="asc or desc.")] = None,
        after: Annotated[str | None, QueryParameter(description="The id before the page.")] = None,
        export_format: Annotated[
            str | None,
            QueryParameter(name="format", description="json, or all of it as csv or jsonl."),
        ] = None,
    ) -> Response[Page[AuditEntry]]:
        chosen = AuditFilter(
            project=_storable("project_id", project_id),
            action=_storable("action", action),
            object_id=_storable("object_id", object_id),
            subject=_storable("subject", subject),
            key_id=_storable("api_key_id", api_key_id),
            since=_time("start_time", start_time),
            until=_time("end_time", end_time),
        )
        form = _format(export_format, request.headers.get("accept", ""))
        if form != "json":
            chosen = visible(principal, chosen)
            return exported(log.export(chosen, form), form, "audit")  # type: ignore[return-value]  # its annotation is what the contract says
        page = page_request(limit=limit, order=order, after=after)
        return Response(await log.page(principal, chosen, page))

    return [list_entries]


def _format(asked: str | None, accept: str) -> str:
    if asked is None:
        return "csv" if wants_csv(accept) else "json"
    if asked not in _FORMATS:
        raise InvalidRequest(
            "Invalid value for 'format': expected 'json', 'csv' or 'jsonl'.",
            param="format",
            code="invalid_value",
        )
    return asked


def _time(name: str, given: int | None) -> int | None:
    if given is not None and not 0 <= given < _LATEST:
        raise InvalidRequest(
            f"Invalid '{name}': expected seconds since the epoch.", param=name, code="invalid_value"
        )
    return given


def _storable(name: str, given: str | None) -> str | None:
    """No entry has a NUL, and PostgreSQL can't even look for one."""
    if given is not None and "\x00" in given:
        raise InvalidRequest(
            f"Invalid '{name}': no value has a NUL in it.", param=name, code="invalid_value"
        )
    return given
