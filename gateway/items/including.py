"""What of an item a caller sees only where it asks for it."""

from __future__ import annotations

from typing import Any

__all__ = ["check_include", "shown"]


def shown(item: dict[str, Any], include: frozenset[str]) -> dict[str, Any]:
    if item["type"] == "file_search_call" and "file_search_call.results" not in include:
        return {**item, "results": None}
    return item


def check_include(include: Any) -> frozenset[str]:
    return frozenset(include or ())
