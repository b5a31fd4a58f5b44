"""What paths and queries carry, with the bounds that the handlers set to it.

Handlers take text and whole numbers, and refuse what is out of bounds in OpenAI's words; Litestar
only sees the types. The fuzzer proves that both say the same.
"""

from __future__ import annotations

from typing import Any, get_args

from litestar.handlers import HTTPRouteHandler

from gateway.files.schemas import OUR_PURPOSES, PURPOSES
from gateway.items.including import Include
from gateway.usage.repository import GROUPS
from gateway.vector_stores.properties import MAX_KEY, MAX_PROPERTIES, MAX_VALUE

__all__ = ["describe_parameters"]

_BOUNDS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"type": "string", "enum": ["asc", "desc"]},
    "filter": {"type": "string", "enum": ["in_progress", "completed", "failed", "cancelled"]},
    "version": {"type": "integer", "minimum": 1},
    "include": {"type": "array", "items": {"type": "string", "enum": [*get_args(Include)]}},
}
_INCLUDE = {
    "name": "include",
    "in": "query",
    "required": False,
    "description": "What to show that is hidden otherwise; may be repeated.",
    "schema": _BOUNDS["include"],
}
_TIME = {"type": "integer", "minimum": 0, "maximum": 2**40 - 1}
_OF_OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("getUsage", "bucket_width"): {"enum": ["1h", "1d"]},
    ("getUsage", "end_time"): _TIME,
    ("getUsage", "format"): {"enum": ["json", "csv"]},
    ("getUsage", "group_by"): {"items": {"type": "string", "enum": [*GROUPS]}},
    ("getUsage", "limit"): {"maximum": 168, "default": 7},
    ("getUsage", "start_time"): _TIME,
    ("listAuditEntries", "end_time"): _TIME,
    ("listAuditEntries", "format"): {"enum": ["json", "csv", "jsonl"]},
    ("listAuditEntries", "start_time"): _TIME,
    ("listFiles", "limit"): {"maximum": 10_000, "default": 10_000},
    ("listFiles", "purpose"): {"enum": [*PURPOSES, *OUR_PURPOSES]},
}
_MORE: dict[str, list[dict[str, Any]]] = {
    "listChatCompletions": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Only those with all of these pairs: `metadata[key]=value`.",
            "style": "deepObject",
            "explode": True,
            "schema": {
                "type": "object",
                "maxProperties": MAX_PROPERTIES,
                "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
                "propertyNames": {"minLength": 1, "maxLength": MAX_KEY, "pattern": "^[a-z]+$"},
            },
        }
    ],
    "getResponse": [_INCLUDE],
    "listInputItems": [_INCLUDE],
}
"""What handlers read of the query themselves."""


def describe_parameters(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    """Make the parameters of this operation as precise as its handler is."""
    if (more := _MORE.get(str(handler.name))) is not None:
        operation["parameters"] = [*operation.get("parameters", ()), *map(dict, more)]
    for parameter in operation.get("parameters", ()):
        schema = _not_null(parameter["schema"])
        name = parameter["name"]
        if parameter["in"] == "query":
            schema |= _BOUNDS.get(name, {})
        schema |= _OF_OPERATIONS.get((str(handler.name), name), {})
        if (words := schema.pop("description", None)) is not None:
            parameter.setdefault("description", words)
        parameter["schema"] = schema


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what may be left out is optional, and that is said elsewhere."""
    schema = dict(schema)
    choices = [one for one in schema.pop("oneOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        schema |= choices[0]
    elif choices:
        schema["oneOf"] = choices
    if isinstance(schema.get("type"), list):
        types = [one for one in schema["type"] if one != "null"]
        schema["type"] = types[0] if len(types) == 1 else types
        schema["enum"] = [one for one in schema["enum"] if one is not None]
    return schema
