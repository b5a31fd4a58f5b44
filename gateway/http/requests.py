"""What ordinary handlers read of a request."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request

from gateway.http.body import read_json_body
from gateway.http.validation import decode_request
from gateway.identity.principal import NOBODY, Principal
from gateway.observability.activity import Activity

if TYPE_CHECKING:
    from gateway.http.asgi import Scope

__all__ = [
    "TAKES",
    "activity_of",
    "principal_of",
    "principal_of_scope",
    "query_list",
    "query_map",
    "read_body",
]

TAKES = "takes"
"""The key of a handler's ``opt`` with the type of its JSON body, for the OpenAPI document."""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of requests that carry no content of files and no messages."""

T = TypeVar("T")


async def read_body(request: Request[Any, Any, Any], of: type[T], limit: int = MAX_BODY_BYTES) -> T:
    """The JSON body. Raises ``InvalidRequest`` that names the parameter at fault."""
    body = await read_json_body(request.scope, request.receive, limit)  # type: ignore[arg-type]
    decoder: msgspec.json.Decoder[T] = _decoder(of)  # type: ignore[arg-type]  # a class is hashable
    return decode_request(decoder, body)


def query_list(request: Request[Any, Any, Any], name: str) -> list[str]:
    """A query parameter that is a list: ``name=a&name=b``, or as OpenAI's SDKs write it,
    ``name[]=a&name[]=b``.
    """
    given = request.query_params
    return [*given.getall(name, []), *given.getall(f"{name}[]", [])]


def query_map(request: Request[Any, Any, Any], name: str) -> dict[str, str]:
    """A query parameter that is an object: ``name[a]=x&name[b]=y``."""
    given = request.query_params
    return {
        key[len(name) + 1 : -1]: value
        for key, value in given.items()
        if key.startswith(f"{name}[") and key.endswith("]")
    }


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Who asks; a dependency of handlers."""
    return principal_of_scope(request.scope)  # type: ignore[arg-type]


def principal_of_scope(scope: Scope) -> Principal:
    """Who asks, where no handler is: on the data path."""
    principal: Principal = scope["state"].get("principal", NOBODY)
    return principal


def activity_of(request: Request[Any, Any, Any]) -> Activity:
    """The request as a step of a trace; a dependency of handlers."""
    return Activity.of_request(request.scope["state"]["exchange"])


@cache
def _decoder(of: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(of)
