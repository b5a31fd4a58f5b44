"""What requests carry: JSON of a type, a form, or what a relay reads of it; and what answers
carry, where Litestar can't know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler

from gateway.contract.answered import ANSWERED
from gateway.contract.overlay import overlay
from gateway.http.intake import TAKES_FORM
from gateway.http.relayed import RELAY
from gateway.http.requests import TAKES

__all__ = ["PASSED", "Bodies"]

_REFERENCE = "#/components/schemas/{name}"
PASSED = (
    "Only what the gateway reads is listed; all other fields go to the model server as they are."
)


class Bodies:
    """The bodies of these handlers' requests, whose schemas are added to ``schemas``.

    All are named at once, since types of several modules share a name: those get their module's
    name too.
    """

    def __init__(self, handlers: Iterable[HTTPRouteHandler], schemas: dict[str, Any]) -> None:
        read = [kind for one in handlers if (kind := _read(one)) is not None]
        kinds = list(dict.fromkeys([*read, *ANSWERED.values()]))
        references, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
        other = {
            name: f"{name}Request"
            for name, schema in components.items()
            if name in schemas and schemas[name] != schema
        }
        overlay(components)
        schemas.update(
            {other.get(name, name): _renamed(one, other) for name, one in components.items()}
        )
        self._references = {
            kind: _renamed(one, other) for kind, one in zip(kinds, references, strict=True)
        }

    def describe(self, operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
        """Add the body that this handler reads, and that of its answer."""
        if (answered := ANSWERED.get(str(handler.name))) is not None:
            content = operation["responses"]["200"].setdefault("content", {})
            content["application/json"] = {"schema": self._references[answered]}
        form, kind = handler.opt.get(TAKES_FORM), _read(handler)
        if form is not None:
            media_type, schema = "multipart/form-data", form
        elif kind is not None:
            media_type, schema = "application/json", self._references[kind]
        else:
            return
        body = {"required": True, "content": {media_type: {"schema": schema}}}
        if RELAY in handler.opt:
            body["description"] = PASSED
        operation["requestBody"] = body


def _read(handler: HTTPRouteHandler) -> type[Any] | None:
    """The type of the JSON that a handler reads."""
    relay = handler.opt.get(RELAY)
    kind: type[Any] | None = handler.opt.get(TAKES) if relay is None else relay.operation.request
    return kind


def _renamed(schema: Any, other: dict[str, str]) -> Any:
    """The schema with these names in its references."""
    if isinstance(schema, list):
        return [_renamed(one, other) for one in schema]
    if not isinstance(schema, dict):
        return schema
    named = {key: _renamed(value, other) for key, value in schema.items()}
    if isinstance(reference := named.get("$ref"), str):
        name = reference.rpartition("/")[2]
        named["$ref"] = _REFERENCE.format(name=other.get(name, name))
    return named
