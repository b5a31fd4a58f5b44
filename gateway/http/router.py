"""Litestar, as the gateway uses it: every answer that is an error has OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from litestar import Litestar, Request, Response, route
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gateway.errors import GatewayError, MethodNotAllowed, NotFound, error_for_status
from gateway.http.query import check_query
from gateway.http.requests import activity_of, principal_of

__all__ = ["router_of"]

_METHODS = "methods"
"""Under which the application's state has the methods of each path."""


def router_of(handlers: list[HTTPRouteHandler], lifespan: list[Any] | None = None) -> Litestar:
    """The application of these handlers; they may ask for ``principal`` and ``activity``."""
    methods = _methods_by_path(handlers)
    app = Litestar(
        [_options_of(methods), *handlers],  # first, or Litestar makes its own
        lifespan=lifespan or [],
        before_request=check_query,
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
    app.state[_METHODS] = methods
    return app


def _methods_by_path(handlers: Iterable[HTTPRouteHandler]) -> dict[str, str]:
    """For each path, as Litestar writes it, its ``allow`` header."""
    found: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            found.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    return {path: ", ".join(sorted(methods)) for path, methods in found.items()}


def _options_of(methods: dict[str, str]) -> HTTPRouteHandler:
    """What a path can do. Litestar's own answer knows only the first handler of a path."""

    @route(list(methods), http_method="OPTIONS", status_code=204, include_in_schema=False)
    async def options(request: Request[Any, Any, Any]) -> Response[None]:
        allowed = _allowed(request)
        return Response(None, status_code=204, headers={"allow": allowed or "OPTIONS"})

    return options


def _allowed(request: Request[Any, Any, Any]) -> str | None:
    """The methods of the path that is asked for, comma separated."""
    methods: dict[str, str] = request.app.state[_METHODS]
    path = request.scope["path"]
    if path in methods:
        return methods[path]
    asked = path.split("/")
    return next((allow for path, allow in methods.items() if _is_of(asked, path)), None)


def _is_of(asked: list[str], path: str) -> bool:
    """Whether these segments fit a path such as ``/models/{model:path}``."""
    parts = path.split("/")
    if parts[-1].endswith(":path}"):
        asked = [*asked[: len(parts) - 1], "/".join(asked[len(parts) - 1 :])]
    return len(asked) == len(parts) and all(
        (part == given) if not part.startswith("{") else given != ""
        for part, given in zip(parts, asked, strict=True)
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
    if error.status_code == 405 and (allowed := _allowed(request)) is not None:
        response.headers["allow"] = allowed
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
