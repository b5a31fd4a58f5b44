"""Reading usage."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.errors import InvalidRequest, PermissionDenied
from gateway.http.export import csv_lines
from gateway.identity.principal import Principal, is_admin
from gateway.usage.repository import GROUPS, UsageFilter, UsageRepository, UsageSum
from gateway.usage.schemas import UsageBucket, UsagePage, UsageResult

__all__ = ["UsageQuery", "UsageService"]

_HOUR, _DAY = 3600, 86400
_WIDTHS = {"1h": (_HOUR, 24, 168), "1d": (_DAY, 7, 31)}
"""Seconds, and how many buckets are on a page by default and at most: OpenAI's numbers."""

_MOST_SUMS = 10_000
_PAGE = re.compile(r"page_(\d{1,15})", re.ASCII)
_LATEST = 2**40
_COLUMNS = (
    *("start_time", "end_time", "project_id", "api_key_id", "model", "operation"),
    *("num_model_requests", "num_failed_requests", "num_estimated_requests"),
    *("input_tokens", "input_cached_tokens", "output_tokens"),
)


class UsageQuery(Struct, frozen=True, kw_only=True):
    """As it was asked, unchecked."""

    start_time: int | None = None
    end_time: int | None = None
    bucket_width: str = "1d"
    group_by: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    api_key_ids: Sequence[str] = ()
    models: Sequence[str] = ()
    limit: int | None = None
    page: str | None = None


class _Plan(Struct, frozen=True):
    start: int
    end: int
    width: int
    group_by: tuple[str, ...]
    chosen: UsageFilter


class UsageService:
    def __init__(self, database: Database, keep_seconds: int | None) -> None:
        self._database = database
        self._keep_seconds = keep_seconds

    async def page(self, principal: Principal, query: UsageQuery) -> UsagePage:
        """Raises ``InvalidRequest`` and ``PermissionDenied``."""
        plan, limit = _plan(principal, query)
        start, width = plan.start, plan.width
        if query.page is not None:
            start = max(start, _place(query.page) // width * width)
        end = min(plan.end, start + limit * width)
        sums = await self._sums(plan, start, end)
        if len(sums) > _MOST_SUMS:  # as many whole buckets as there is room for
            end = sums[-1].start
            if end == start:
                raise InvalidRequest(
                    f"A bucket has more than {_MOST_SUMS} groups. Choose some by 'project_ids', "
                    "'api_key_ids' or 'models', or ask for format=csv.",
                    param="group_by",
                    code="invalid_value",
                )
            sums = [one for one in sums if one.start < end]
        by_start: dict[int, list[UsageSum]] = {}
        for one in sums:
            by_start.setdefault(one.start, []).append(one)
        data = [
            UsageBucket(
                start_time=at,
                end_time=at + width,
                results=[_result(one, plan.group_by) for one in by_start.get(at, ())],
            )
            for at in range(start, end, width)
        ]
        more = end < plan.end
        return UsagePage(data=data, has_more=more, next_page=f"page_{end}" if more else None)

    def csv(self, principal: Principal, query: UsageQuery) -> AsyncIterator[bytes]:
        """All of it as CSV, with a line of names; raises as :meth:`page` does, at once."""
        plan, _ = _plan(principal, query)
        return self._csv(plan)

    async def _csv(self, plan: _Plan) -> AsyncIterator[bytes]:
        yield csv_lines([_COLUMNS])
        async with self._database.read() as session:
            span = await UsageRepository(session).span(plan.chosen)
        if span is None:
            return
        first, end = max(plan.start, span[0] // _DAY * _DAY), min(plan.end, span[1] + 1)
        for start in range(first // _DAY * _DAY, end, _DAY):  # a day at a time is no load
            sums = await self._sums(plan, max(start, plan.start), min(start + _DAY, plan.end), None)
            if sums:
                yield csv_lines([_cells(one, plan) for one in sums])

    async def forget(self) -> int:
        """Usage that is too old; for the reaper."""
        if self._keep_seconds is None:
            return 0
        async with self._database.begin() as session:
            return await UsageRepository(session).forget(now() - self._keep_seconds)

    async def _sums(
        self, plan: _Plan, start: int, end: int, most: int | None = _MOST_SUMS + 1
    ) -> list[UsageSum]:
        async with self._database.read() as session:
            return await UsageRepository(session).sums(
                start, end, plan.width, plan.group_by, plan.chosen, most
            )


def _plan(principal: Principal, query: UsageQuery) -> tuple[_Plan, int]:
    if query.bucket_width not in _WIDTHS:
        raise InvalidRequest(
            "Invalid value for 'bucket_width': expected '1h' or '1d'.",
            param="bucket_width",
            code="invalid_value",
        )
    width, usual, most = _WIDTHS[query.bucket_width]
    limit = usual if query.limit is None else query.limit
    if not 1 <= limit <= most:
        raise InvalidRequest(
            f"Invalid 'limit': expected a value between 1 and {most}, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value" if limit < 1 else "integer_above_max_value",
        )
    for name in query.group_by:
        if name not in GROUPS:
            raise InvalidRequest(
                f"Invalid value for 'group_by': expected {', '.join(GROUPS)}.",
                param="group_by",
                code="invalid_value",
            )
    end = _time("end_time", query.end_time, now())
    start = _time("start_time", query.start_time, end - (limit - 1) * width)
    if start > end:
        raise InvalidRequest(
            "Invalid 'start_time': it lies behind 'end_time'.",
            param="start_time",
            code="invalid_value",
        )
    chosen = UsageFilter(
        projects=_projects(principal, query.project_ids),
        keys=query.api_key_ids or None,
        models=query.models or None,
    )
    first, last = start // width * width, -(-max(end, start + 1) // width) * width
    groups = tuple(name for name in GROUPS if name in query.group_by)
    return _Plan(first, last, width, groups, chosen), limit


def _projects(principal: Principal, asked: Sequence[str]) -> Sequence[str] | None:
    if is_admin(principal):
        return asked or None
    if any(project != principal.project for project in asked):
        raise PermissionDenied(
            "Only the scope 'admin' sees other projects.",
            param="project_ids",
            code="insufficient_scope",
        )
    return [principal.project]


def _time(name: str, given: int | None, default: int) -> int:
    if given is not None and not 0 <= given < _LATEST:
        raise InvalidRequest(
            f"Invalid '{name}': expected seconds since the epoch.", param=name, code="invalid_value"
        )
    return max(0, default) if given is None else given


def _place(page: str) -> int:
    match = _PAGE.fullmatch(page)
    if match is None:
        raise InvalidRequest(
            "Invalid 'page': expected the next_page of an earlier answer.",
            param="page",
            code="invalid_value",
        )
    return int(match[1])


def _result(one: UsageSum, group_by: Sequence[str]) -> UsageResult:
    amounts = one.amounts
    groups = {name: value or None for name, value in zip(group_by, one.group, strict=True)}
    return UsageResult(
        input_tokens=amounts.input_tokens,
        output_tokens=amounts.output_tokens,
        input_cached_tokens=amounts.cached_tokens,
        num_model_requests=amounts.requests,
        num_failed_requests=amounts.errors,
        num_estimated_requests=amounts.estimated,
        project_id=groups.get("project_id"),
        api_key_id=groups.get("api_key_id"),
        model=groups.get("model"),
        operation=groups.get("operation"),
    )


def _cells(one: UsageSum, plan: _Plan) -> list[str | int]:
    result = _result(one, plan.group_by)
    times = {"start_time": one.start, "end_time": one.start + plan.width}
    return [
        times[name] if name in times else getattr(result, name) or _empty(name) for name in _COLUMNS
    ]


def _empty(name: str) -> str | int:
    return 0 if name.startswith(("num_", "input_", "output_")) else ""
