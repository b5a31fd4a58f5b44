"""Litestar, as the gateway uses it: every answer that is an error has OpenAI's shape."""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gateway.errors import GatewayError, MethodNotAllowed, NotFound, error_for_status
from gateway.http.requests import activity_of, principal_of

__all__ = ["router_of"]


def router_of(handlers: list[HTTPRouteHandler], lifespan: list[Any] | None = None) -> Litestar:
    """The application of these handlers; they may ask for ``principal`` and ``activity``."""
    return Litestar(
        handlers,
        lifespan=lifespan or [],
        dependencies={
            "principal": Provide(principal_of, sync_to_thread=False),
            "activity": Provide(activity_of, sync_to_thread=False),
        },
        exception_handlers={
            GatewayError: _answer_error,
            HTTPException: _answer_http_exception,
            Exception: _to_the_edge,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )


def _answer_error(request: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    request.scope["state"]["exchange"].fail(error)
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(
        error.body(), status_code=error.status, media_type="application/json", headers=headers
    )


def _to_the_edge(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """What nobody foresaw is logged and answered by the edge, not by Litestar in its own shape."""
    raise error


def _answer_http_exception(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[bytes]:
    """Litestar's own complaints, in the one shape."""
    method, path = request.scope["method"], request.scope["path"]
    shown: GatewayError
    if error.status_code == 404:
        shown = NotFound(f"Unknown request URL: {method} {path}.", code="unknown_url")
    elif error.status_code == 405:
        shown = MethodNotAllowed(f"Not allowed to {method} on {path}.", code="method_not_allowed")
    else:
        shown = error_for_status(error.status_code)(_detail(error), param=_param(error))
    response = _answer_error(request, shown)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _detail(error: HTTPException) -> str:
    """What is wrong, of a validation error with the parameter's name."""
    param = _param(error)
    if param is None:
        return error.detail
    return f"Invalid '{param}': {cast('Any', error.extra)[0].get('message', error.detail)}."


def _param(error: HTTPException) -> str | None:
    """The parameter that a validation error is about."""
    if isinstance(error.extra, list) and error.extra and isinstance(error.extra[0], dict):
        return error.extra[0].get("key")
    return None
