"""A file as OpenAI's clients know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.errors import InvalidRequest
from gateway.http.validation import NOT_JSON, explain

__all__ = [
    "FILE_FORM",
    "PURPOSES",
    "DeletedFile",
    "ExpiresAfter",
    "FileObject",
    "NewFile",
    "Purpose",
    "expires_after_of",
    "purpose_of",
]

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""What callers may upload files for."""

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
OUR_PURPOSES = ("assistants_output", "batch_output")
"""Of files that the gateway makes itself."""

EXPIRES_AFTER = "expires_after"
EXPIRES_AFTER_FIELDS = (
    EXPIRES_AFTER,
    f"{EXPIRES_AFTER}[anchor]",
    f"{EXPIRES_AFTER}[seconds]",
)
"""A JSON object in one field, or a field for each of its values: SDKs do either."""


FILE_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": [*PURPOSES]},
        "expires_after": {
            "type": "object",
            "required": ["anchor", "seconds"],
            "properties": {
                "anchor": {"type": "string", "enum": ["created_at"]},
                "seconds": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
            },
        },
    },
}
"""The form of ``POST /v1/files`` as the OpenAPI document has it."""


class FileObject(Struct, frozen=True, kw_only=True):
    """OpenAI's ``File``. What is not set is left out, since neither may be null there."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | UnsetType = UNSET
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | UnsetType = UNSET


class DeletedFile(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class ExpiresAfter(Struct, frozen=True):
    """When a file goes by itself: an hour to 30 days after it was made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class NewFile(Struct, frozen=True, kw_only=True):
    """What is said of a file that is to be stored. ``expires_after`` is in seconds."""

    filename: str
    purpose: str
    media_type: str | None = None
    expires_after: int | None = None


def purpose_of(fields: Mapping[str, str]) -> str:
    """The form's ``purpose``. Raises ``InvalidRequest``."""
    purpose = fields.get("purpose")
    if purpose is None:
        raise InvalidRequest(
            "Missing required parameter: 'purpose'.",
            param="purpose",
            code="missing_required_parameter",
        )
    check_purpose(purpose, PURPOSES)
    return purpose


def check_purpose(purpose: str, known: tuple[str, ...]) -> None:
    """Raises ``InvalidRequest`` for one that there isn't."""
    if purpose not in known:
        words = ", ".join(f"'{one}'" for one in known)
        raise InvalidRequest(
            f"Invalid value for 'purpose': '{purpose[:100]}' is not one of {words}.",
            param="purpose",
            code="invalid_value",
        )


def expires_after_of(fields: Mapping[str, str]) -> int | None:
    """The form's ``expires_after`` in seconds, in either way of writing it."""
    values: Any = {
        name: fields[key]
        for key, name in zip(EXPIRES_AFTER_FIELDS[1:], ("anchor", "seconds"), strict=True)
        if key in fields
    }
    whole = fields.get(EXPIRES_AFTER, "").strip()
    if not values and whole in ("", "null"):
        return None
    try:
        if whole and not values:
            values = msgspec.json.decode(whole)
        return msgspec.convert(values, ExpiresAfter, strict=False).seconds
    except msgspec.ValidationError as error:
        found = explain(error)
        param = EXPIRES_AFTER + (f".{found.param}" if found.param else "")
        message = found.message.replace(f"'{found.param}'", f"'{param}'", 1)
        raise InvalidRequest(message, param=param, code=found.code) from None
    except NOT_JSON:
        raise InvalidRequest(
            f"Invalid value for '{EXPIRES_AFTER}': it is not a JSON object.",
            param=EXPIRES_AFTER,
            code="invalid_value",
        ) from None
