"""Items as callers send them, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from gateway.database.identifiers import long_id
from gateway.errors import InvalidRequest
from gateway.http.validation import check_depth, explain
from gateway.items.schemas import ITEM_PREFIXES, SOURCES, Item

__all__ = ["item_id", "parse_items", "user_message"]

_STATUS = frozenset(
    {"message", "function_call", "function_call_output", "file_search_call", "web_search_call"}
)
"""Kinds that are ``completed`` where the caller doesn't say otherwise."""


def parse_items(items: Sequence[Any], param: str) -> list[dict[str, Any]]:
    """The items in the form that is stored: with type and id, and content as a list of parts.

    What isn't known of an item is kept. ``param`` is where they stand in the request. Raises
    ``InvalidRequest`` that names the field at fault. A reference stays one.
    """
    named = [_with_type(item) for item in items]
    try:
        msgspec.convert({param: named}, _holder(param))
    except msgspec.ValidationError as error:
        raise explain(error, _holder(param)) from None
    check_depth(named, param)
    seen: set[str] = set()
    parsed = []
    for position, item in enumerate(named):
        form = _form(item, f"{param}[{position}]")
        if form["id"] in seen:
            raise InvalidRequest(
                f"Duplicate item found with id '{form['id']}'. Remove duplicate items from your "
                "input and try again.",
                param=param,
                code="invalid_value",
            )
        if form["type"] != "item_reference":
            seen.add(form["id"])
        parsed.append(form)
    return parsed


def user_message(text: str) -> dict[str, Any]:
    """What a plain string as input means."""
    return {
        "id": item_id("message"),
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }


def item_id(kind: str) -> str:
    """A new id for an item of this type."""
    return long_id(ITEM_PREFIXES.get(kind, "item_"))


def _with_type(item: Any) -> Any:
    """Messages and references may come without a type."""
    if not isinstance(item, dict) or item.get("type") is not None:
        return item
    if "role" in item:
        return {**item, "type": "message"}
    if "id" in item:
        return {**item, "type": "item_reference"}
    return item


def _form(item: dict[str, Any], where: str) -> dict[str, Any]:
    kind = item["type"]
    if "\x00" in (item.get("id") or ""):
        raise InvalidRequest(
            f"Invalid '{where}.id': an id can't hold the character U+0000.",
            param=f"{where}.id",
            code="invalid_value",
        )
    if kind == "item_reference":
        if item.get("id") is None:
            raise InvalidRequest(
                f"Missing required parameter: '{where}.id'.",
                param=f"{where}.id",
                code="missing_required_parameter",
            )
        return item
    form: dict[str, Any] = {**item, "id": item.get("id") or item_id(kind)}
    if kind in _STATUS:
        form["status"] = item.get("status") or "completed"
    if kind == "message":
        content = item["content"]
        if isinstance(content, str):
            spoken = "output_text" if item["role"] == "assistant" else "input_text"
            content = [{"type": spoken, "text": content}]
        form["content"] = [
            _part(part, f"{where}.content[{position}]") for position, part in enumerate(content)
        ]
    return form


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """A part of a message with what OpenAI's clients expect to be there."""
    kind = part["type"]
    if kind == "output_text":
        return {**part, **{key: part.get(key) or [] for key in ("annotations", "logprobs")}}
    if (sources := SOURCES.get(kind)) and not any(part.get(source) for source in sources):
        raise InvalidRequest(
            f"Missing required parameter: '{where}.{sources[0]}'.",
            param=f"{where}.{sources[0]}",
            code="missing_required_parameter",
        )
    if kind == "input_image":
        return {**part, "detail": part.get("detail") or "auto"}
    return part


@cache
def _holder(param: str) -> type[Struct]:
    """An object with the items in a field of this name, so that complaints name it."""
    return msgspec.defstruct("Items", [(param, list[Item])])
