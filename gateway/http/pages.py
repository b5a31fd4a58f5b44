"""Lists in OpenAI's way: a cursor is an object's id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from gateway.database.paging import PageRequest
from gateway.errors import InvalidRequest

__all__ = ["Page", "page_of", "page_request"]

T = TypeVar("T")


class Page(Struct, Generic[T]):
    """OpenAI's envelope of a list. ``first_id`` and ``last_id`` are null where it is empty."""

    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
    object: Literal["list"] = "list"


def page_request(
    *,
    limit: int | None,
    order: str | None,
    after: str | None = None,
    before: str | None = None,
    default: int = 20,
    most: int = 100,
) -> PageRequest:
    """The query parameters of a list, checked. Raises ``InvalidRequest`` that names one."""
    if order not in (None, "asc", "desc"):
        raise InvalidRequest(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.",
            param="order",
            code="invalid_value",
        )
    if limit is not None and not 1 <= limit <= most:
        raise InvalidRequest(
            f"Invalid 'limit': expected a value between 1 and {most}, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value" if limit < 1 else "integer_above_max_value",
        )
    return PageRequest(
        limit=limit or default,
        order="asc" if order == "asc" else "desc",
        after=after or None,
        before=before or None,
    )


def page_of(
    rows: Sequence[Any], request: PageRequest, shape: Callable[[Any], T], *, empty: str | None
) -> Page[T]:
    """The page of up to ``limit + 1`` rows that a repository found: one more says there is more.

    ``empty`` is what ``first_id`` and ``last_id`` are where there are no objects, which differs
    between the profiles.
    """
    has_more = len(rows) > request.limit
    if has_more:
        rows = rows[1:] if request.before and not request.after else rows[: request.limit]
    data = [shape(row) for row in rows]
    ids: list[str] = [str(getattr(one, "id", "")) for one in data]
    return Page(
        data=data,
        has_more=has_more,
        first_id=ids[0] if ids else empty,
        last_id=ids[-1] if ids else empty,
    )
