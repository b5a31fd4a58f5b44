"""What a query may look like, before the handlers read it."""

from __future__ import annotations

from typing import Any

from litestar import Request

from gateway.errors import InvalidRequest

__all__ = ["check_query"]

_LISTS = frozenset({"include", "group_by", "project_ids", "api_key_ids", "models"})
"""Parameters that may be there several times; ``name[]`` always may."""
_NEVER_NULL = frozenset(
    {"limit", "version", "starting_after", "api_filter", "start_time", "end_time"}
)
"""Litestar reads the word as a missing value."""
_MOST = 100


def check_query(request: Request[Any, Any, Any]) -> None:
    """Raises ``InvalidRequest`` for a parameter that is there twice, or for far too many.

    Which of two values counts differs between servers, so that whoever stands in front might check
    the one and this would use the other.
    """
    if not request.scope["query_string"]:
        return
    given = list(request.query_params.multi_items())
    if len(given) > _MOST:
        raise InvalidRequest(
            f"The query has more than {_MOST} parameters.", code="too_many_parameters"
        )
    seen: set[str] = set()
    for name, value in given:
        if name in seen and name not in _LISTS and not name.endswith("[]"):
            raise InvalidRequest(
                f"Invalid '{name[:100]}': it is given more than once.",
                param=name[:100],
                code="duplicate_parameter",
            )
        if value == "null" and name in _NEVER_NULL:
            raise InvalidRequest(
                f"Invalid '{name}': 'null' is no value; leave the parameter out.",
                param=name,
                code="invalid_value",
            )
        seen.add(name)
