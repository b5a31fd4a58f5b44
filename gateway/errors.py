"""Every error that a caller can meet, and the only place that makes an error body.

::

    GatewayError                    500  server_error
    ├── InvalidRequest              400  invalid_request_error
    │   └── WrongKind               400  … code=model_not_supported
    ├── AuthenticationFailed        401  authentication_error
    │   └── Unauthenticated         401  invalid_request_error   + www-authenticate: Bearer
    ├── PermissionDenied            403  permission_error
    │   └── MissingScope            403  invalid_request_error   … code=missing_scope
    ├── NotFound                    404  invalid_request_error
    │   └── ModelNotFound           404  … code=model_not_found
    ├── MethodNotAllowed            405  invalid_request_error
    ├── RequestStalled              408  invalid_request_error   … code=request_timeout
    ├── Conflict                    409  conflict_error
    │   └── FinalConflict           409  …                       + x-should-retry: false
    ├── PayloadTooLarge             413  invalid_request_error
    ├── UnsupportedMediaType        415  invalid_request_error
    ├── RangeNotSatisfiable         416  invalid_request_error   + content-range
    ├── UnprocessableRequest        422  invalid_request_error
    ├── ToolServerError             424  external_connector_error  a server of tools failed
    ├── RateLimited                 429  rate_limit_error        + retry-after
    ├── UpstreamError               502  upstream_error          the server behind us failed
    │   ├── UpstreamUnavailable     503  service_unavailable     + retry-after
    │   │   └── UpstreamUnreachable 503  … code=upstream_unreachable
    │   └── UpstreamTimeout         504  timeout_error
    │       ├── UpstreamConnectTimeout  …    code=upstream_connect_timeout
    │       └── UpstreamTotalTimeout    …    the server works, but for too long
    ├── ShuttingDown                503  service_unavailable     + retry-after
    └── ClientDisconnected          499  never sent: nobody is there to read it

The body is OpenAI's, for every status that is not 2xx::

    {"error": {"message": "…", "type": "…", "param": "messages" | null, "code": "…" | null}}

A caller's mistake is never 5xx, and a fault of ours or of a server behind us is never 4xx:
the SDKs retry the one and give up on the other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "AuthenticationFailed",
    "ClientDisconnected",
    "Conflict",
    "FinalConflict",
    "GatewayError",
    "InvalidRequest",
    "MethodNotAllowed",
    "MissingScope",
    "ModelNotFound",
    "NotFound",
    "PayloadTooLarge",
    "PermissionDenied",
    "RangeNotSatisfiable",
    "RateLimited",
    "RequestStalled",
    "ShuttingDown",
    "ToolServerError",
    "Unauthenticated",
    "UnprocessableRequest",
    "UnsupportedMediaType",
    "UpstreamConnectTimeout",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamTotalTimeout",
    "UpstreamUnavailable",
    "UpstreamUnreachable",
    "WrongKind",
    "error_for_status",
]

RETRY_AFTER_SECONDS = 1


class GatewayError(Exception):
    """The root. Raised as itself only for a fault of the gateway's own.

    ``message`` is shown to the caller, so it never holds a secret or an address that the caller
    may not know. ``retry_after`` is in seconds.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    default_retry_after: ClassVar[int | None] = None
    nothing_sent: ClassVar[bool] = False
    """True where no server has seen the request, so that another one may be asked."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        self.error_type = self.code or type(self).__name__
        """The ``error.type`` of spans and metrics: a code of ours or a class, so few values."""

    def to_dict(self) -> dict[str, Any]:
        """The object under ``error``."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }

    def body(self) -> bytes:
        """The whole answer in OpenAI's shape."""
        return msgspec.json.encode({"error": self.to_dict()})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that belong to this error, beside content type and length."""
        if self.retry_after is None:
            return []
        return [(b"retry-after", str(self.retry_after).encode())]


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class WrongKind(InvalidRequest):
    """The model exists but is for something else, e.g. an embedding model asked to chat."""

    default_code = "model_not_supported"


class AuthenticationFailed(GatewayError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Unauthenticated(AuthenticationFailed):
    """Nobody knows the caller of the gateway itself. OpenAI's words for it are these."""

    type = "invalid_request_error"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class PermissionDenied(GatewayError):
    status = 403
    type = "permission_error"


class MissingScope(PermissionDenied):
    """The caller is known, and may not do this."""

    type = "invalid_request_error"
    default_code = "missing_scope"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"


class RequestStalled(GatewayError):
    """The caller stopped sending in the middle of its request."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class Conflict(GatewayError):
    status = 409
    type = "conflict_error"


class FinalConflict(Conflict):
    """One that time won't change; OpenAI's SDKs retry any other 409."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"x-should-retry", b"false")]


class PayloadTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class UnsupportedMediaType(GatewayError):
    status = 415
    type = "invalid_request_error"


class RangeNotSatisfiable(GatewayError):
    """The range begins behind the content's end; ``size`` is that of the content, in bytes."""

    status = 416
    type = "invalid_request_error"
    default_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes; the range lies outside.", param="range")
        self._size = size

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"content-range", b"bytes */%d" % self._size)]


class UnprocessableRequest(GatewayError):
    status = 422
    type = "invalid_request_error"


class ToolServerError(GatewayError):
    """A server of tools (MCP) that the caller names can't say which tools it has."""

    status = 424
    type = "external_connector_error"
    default_code = "tool_server_failed"


class RateLimited(GatewayError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    default_retry_after = RETRY_AFTER_SECONDS


class UpstreamError(GatewayError):
    """The server behind us answered with something that can't be passed on, or broke off."""

    status = 502
    type = "upstream_error"
    default_code = "bad_upstream_answer"


class UpstreamUnavailable(UpstreamError):
    """It can't take the request now: overloaded, starting, draining or gone."""

    status = 503
    type = "service_unavailable"
    default_code = "upstream_unavailable"
    default_retry_after = RETRY_AFTER_SECONDS


class UpstreamUnreachable(UpstreamUnavailable):
    """No connection came about."""

    default_code = "upstream_unreachable"
    nothing_sent = True


class UpstreamTimeout(UpstreamError):
    """One of the four limits ran out: connect, first byte, idle or total."""

    status = 504
    type = "timeout_error"
    default_code = "upstream_timeout"


class UpstreamConnectTimeout(UpstreamTimeout):
    default_code = "upstream_connect_timeout"
    nothing_sent = True


class UpstreamTotalTimeout(UpstreamTimeout):
    """The answer is too long for the limit on the whole; its server is well."""


class ShuttingDown(GatewayError):
    """This gateway ends and the time for requests in progress is over."""

    status = 503
    type = "service_unavailable"
    default_code = "shutting_down"
    default_retry_after = RETRY_AFTER_SECONDS


class ClientDisconnected(GatewayError):
    """The caller left. Ends the work; is counted and traced, never answered."""

    status = 499
    type = "client_disconnected"
    default_code = "client_disconnected"


_BY_STATUS: dict[int, type[GatewayError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    422: UnprocessableRequest,
    429: RateLimited,
    500: GatewayError,
    502: UpstreamError,
    503: UpstreamUnavailable,
    504: UpstreamTimeout,
}


def error_for_status(status: int) -> type[GatewayError]:
    """The class whose status this is; the nearest honest one where there is none."""
    if found := _BY_STATUS.get(status):
        return found
    return InvalidRequest if 400 <= status < 500 else UpstreamError
