"""The OpenAPI document: Litestar's, made precise in what Litestar can't know."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig

from gateway import __version__
from gateway.contract.answers import COMPONENTS, describe_answers
from gateway.contract.bodies import Bodies
from gateway.contract.parameters import describe_parameters
from gateway.http.requests import activity_of, principal_of

__all__ = ["openapi_document"]


def openapi_document(handlers: Sequence[HTTPRouteHandler]) -> dict[str, Any]:
    """The OpenAPI document of these handlers, with bodies for those that are relays."""
    app = Litestar(
        list(handlers),
        dependencies={
            "principal": Provide(principal_of, sync_to_thread=False),
            "activity": Provide(activity_of, sync_to_thread=False),
        },
        openapi_config=OpenAPIConfig(
            title="Understudy",
            version=__version__,
            summary="An OpenAI-compatible gateway that stands in for LlamaStack.",
        ),
    )
    document = app.openapi_schema.to_schema()
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    bodies = Bodies(handlers, schemas)
    for kind, parts in COMPONENTS.items():
        components.setdefault(kind, {}).update(parts)
    for handler in handlers:
        for number, path in enumerate(sorted(handler.paths, key=_usual_first)):
            for method, operation in document["paths"][_document_path(path)].items():
                if method.upper() not in handler.http_methods:
                    continue
                operation["operationId"] = (
                    handler.name if number == 0 else f"{handler.name}_{number}"
                )
                describe_parameters(operation, handler)
                describe_answers(operation, handler, path)
                bodies.describe(operation, handler)
    written = msgspec.json.encode(document)
    return cast("dict[str, Any]", json.loads(written, object_hook=_dedented))


def _dedented(part: dict[str, Any]) -> dict[str, Any]:
    """Docstrings keep the indentation of their source up to Python 3.12, and lose it after."""
    if isinstance(words := part.get("description"), str):
        part["description"] = inspect.cleandoc(words)
    return part


def _usual_first(path: str) -> tuple[bool, bool, str]:
    return not path.startswith("/v1/"), path.startswith("/v1/openai/"), path


def _document_path(path: str) -> str:
    """Litestar's ``/models/{model:path}`` as OpenAPI writes it."""
    return "/".join(
        part.partition(":")[0] + "}" if part.startswith("{") and ":" in part else part
        for part in path.split("/")
    )
