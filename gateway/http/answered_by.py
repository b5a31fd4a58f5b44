"""An ASGI application as a handler's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from litestar import Response
from litestar.response.base import ASGIResponse

if TYPE_CHECKING:
    from gateway.http.asgi import ASGIApp

__all__ = ["AnsweredBy"]


class AnsweredBy(Response[Any]):
    """For handlers whose annotation says what they answer with."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(content=None)
        self._app = app

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        return cast("ASGIResponse", self._app)  # Litestar only calls it
