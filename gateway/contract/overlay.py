"""What the services demand of a request's body beyond its types, in the words of JSON Schema.

The types say what can be decoded; what is checked afterwards, so that the refusal may be OpenAI's
own, is said here. The fuzzer proves that both say the same.
"""

from __future__ import annotations

from typing import Any, get_args

from gateway.items.including import Include
from gateway.vector_stores.filters import MAX_KEY_CHARACTERS, MAX_VALUES
from gateway.vector_stores.properties import MAX_KEY, MAX_PROPERTIES, MAX_VALUE

__all__ = ["SCHEMAS", "overlay"]

_MAP = {"maxProperties": MAX_PROPERTIES, "propertyNames": {"maxLength": MAX_KEY}}
_METADATA = {**_MAP, "additionalProperties": {"type": "string", "maxLength": MAX_VALUE}}
_ATTRIBUTES = {
    **_MAP,
    "additionalProperties": {"type": ["string", "number", "boolean"], "maxLength": MAX_VALUE},
}
_ITEMS = {
    "items": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
    }
}
_FILTER = {"$ref": "#/components/schemas/Filter"}
_FILTERS = {"anyOf": [_FILTER, {"type": "object", "maxProperties": 0}]}
_ID = {"pattern": r"^[^\x00-\x20\x7f]{1,80}$(?!\n)"}
_VERSIONS = "(/v1|/v1/openai/v1)"
_BATCHED = "chat/completions|completions|embeddings|responses"
_KEY = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS}

SCHEMAS: dict[str, Any] = {
    "Filter": {
        "description": "Compares an attribute, or joins other filters.",
        "oneOf": [
            {
                "type": "object",
                "required": ["type", "key", "value"],
                "properties": {
                    "type": {"enum": ["eq", "ne"]},
                    "key": _KEY,
                    "value": {"type": ["string", "number", "boolean"]},
                },
            },
            {
                "type": "object",
                "required": ["type", "key", "value"],
                "properties": {
                    "type": {"enum": ["gt", "gte", "lt", "lte"]},
                    "key": _KEY,
                    "value": {"type": ["string", "number"]},
                },
            },
            {
                "type": "object",
                "required": ["type", "key", "value"],
                "properties": {
                    "type": {"enum": ["in", "nin"]},
                    "key": _KEY,
                    "value": {
                        "type": "array",
                        "maxItems": MAX_VALUES,
                        "items": {"type": ["string", "number", "boolean"]},
                    },
                },
            },
            {
                "type": "object",
                "required": ["type", "filters"],
                "properties": {
                    "type": {"enum": ["and", "or"]},
                    "filters": {"type": "array", "items": _FILTER},
                },
            },
        ],
    }
}
"""Of which several bodies make use."""

_PROPERTIES: dict[str, dict[str, Any]] = {
    "AttachFile.attributes": _ATTRIBUTES,
    "BatchFile.attributes": _ATTRIBUTES,
    "CreateBatch.completion_window": {"enum": ["24h"]},
    "CreateBatch.endpoint": {"pattern": f"^{_VERSIONS}/({_BATCHED})$"},
    "CreateBatch.metadata": _METADATA,
    "CreateConversation.items": _ITEMS,
    "CreateConversation.metadata": _METADATA,
    "CreateFileBatch.attributes": _ATTRIBUTES,
    "CreateItems.items": _ITEMS,
    "CreateResponse.include": {"items": {"enum": [*get_args(Include)]}},
    "CreateResponse.metadata": _METADATA,
    "CreateUpload.mime_type": {"pattern": r"^[!-.0-~]{1,60}/[!-~]{1,60}( *;[ -~]{0,60})?$(?!\n)"},
    "CreateVectorStore.metadata": {
        **_METADATA,
        "properties": {"embedding_dimension": {"type": ["string", "integer"]}},
    },
    "InsertChunks.ttl_seconds": {"type": "null"},
    "QueryParams.filters": _FILTERS,
    "RegisterShield.provider_id": _ID,
    "RegisterShield.provider_shield_id": _ID,
    "RegisterShield.shield_id": _ID,
    "SearchRequest.filters": _FILTERS,
    "UpdateCompletion.metadata": _METADATA,
    "UpdateConversation.metadata": _METADATA,
    "UpdateStoreFile.attributes": _ATTRIBUTES,
    "UpdateVectorStore.metadata": _METADATA,
}
_EITHER = {
    "CreateFileBatch": ("file_ids", "files"),
    "InsertChunks": ("vector_store_id", "vector_db_id"),
    "QueryRequest": ("vector_store_id", "vector_db_id"),
    "RagInsert": ("vector_store_id", "vector_db_id"),
    "RagQuery": ("vector_store_ids", "vector_db_ids"),
}
"""Of which one must be there."""


def overlay(schemas: dict[str, Any]) -> None:
    """Add the demands to these schemas, in place. A name that there isn't is a ``KeyError``."""
    for name, demand in _PROPERTIES.items():
        kind, _, field = name.partition(".")
        properties = schemas[kind]["properties"]
        properties[field] = _narrowed(properties[field], demand)
    for kind, fields in _EITHER.items():
        types = {one: _not_null(schemas[kind]["properties"][one]) for one in fields}
        schemas[kind]["anyOf"] = [
            {"required": [one], "properties": {one: {"minLength": 1, "minItems": 1, **given}}}
            for one, given in types.items()
        ]
    schemas.update(SCHEMAS)


def _narrowed(schema: dict[str, Any], demand: dict[str, Any]) -> dict[str, Any]:
    """The schema with the demand, which null is exempt from where it is allowed."""
    if demand.get("type") == "null":
        return demand
    if "anyOf" not in schema:
        return {**schema, **demand}
    narrowed = [one if one == {"type": "null"} else {**one, **demand} for one in schema["anyOf"]]
    return {**schema, "anyOf": narrowed}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    [one] = [one for one in schema["anyOf"] if one != {"type": "null"}]
    return dict(one)
