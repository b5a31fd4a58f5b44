"""The headers with which a caller is known to a tool server. They are passed on, and never kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from litestar import Request
from msgspec import Struct, field

from gateway.errors import InvalidRequest

__all__ = ["Credentials", "check_headers", "credentials_of", "request_headers"]

MOST_HEADERS = 64
MAX_VALUE_CHARACTERS = 16_384
MAX_HEADER_BYTES = 65_536
_PROVIDER_DATA = ("x-ogx-provider-data", "x-llamastack-provider-data")
_OURS = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "keep-alive", "last-event-id", "mcp-session-id"),
        *("mcp-protocol-version", "proxy-authorization", "te", "trailer", "transfer-encoding"),
        *("upgrade", "traceparent", "tracestate"),
    }
)
"""What frames a message, or belongs to the protocol or to the gateway."""


class _ProviderData(Struct, frozen=True):
    mcp_headers: dict[str, dict[str, str]] = field(default_factory=dict)


class Credentials(Struct, frozen=True, kw_only=True):
    """What a request carries for tool servers: LlamaStack's ``mcp_headers`` by URL, and a token."""

    by_url: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    authorization: str | None = None

    def __repr__(self) -> str:
        return "Credentials()"

    def for_url(self, url: str) -> dict[str, str]:
        """The headers for this server: host and path decide, as in LlamaStack."""
        headers: dict[str, str] = {}
        for given, values in self.by_url.items():
            if _place(given) == _place(url):
                headers.update(values)
        return headers


def credentials_of(
    request: Request[Any, Any, Any], authorization: str | None = None
) -> Credentials:
    """Those of a request's provider-data header. Raises ``InvalidRequest``."""
    for name in _PROVIDER_DATA:
        text = request.headers.get(name)
        if text is None:
            continue
        try:
            data = msgspec.json.decode(
                text.encode("latin-1")[:MAX_HEADER_BYTES], type=_ProviderData
            )
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidRequest(
                f"Invalid '{name}': expected a JSON object with 'mcp_headers', headers by URL.",
                param=name,
                code="invalid_value",
            ) from None
        return Credentials(by_url=data.mcp_headers, authorization=authorization)
    return Credentials(authorization=authorization)


def check_headers(
    headers: Mapping[str, str], authorization: str | None, param: str
) -> dict[str, str]:
    """The caller's headers, names in lower case.

    Raises ``InvalidRequest``, which repeats no value.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if len(lowered) > MOST_HEADERS:
        raise _invalid(f"{param}.headers", f"there are more than {MOST_HEADERS}")
    for name, value in lowered.items():
        shown = name[:64]
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise _invalid(f"{param}.headers", f"{shown!r} is no name of a header")
        if name in _OURS:
            raise _invalid(f"{param}.headers", f"'{shown}' is not a caller's to set")
        if not _is_value(value):
            raise _invalid(f"{param}.headers", f"the value of '{shown}' can't be sent")
    if authorization is not None:
        if "authorization" in lowered:
            raise InvalidRequest(
                f"Give either '{param}.authorization' or the header 'authorization', not both.",
                param=f"{param}.authorization",
                code="mutually_exclusive_parameters",
            )
        if not authorization.strip() or not _is_value(authorization):
            raise _invalid(f"{param}.authorization", "it can't be sent in a header")
    return request_headers(lowered, authorization)


def request_headers(headers: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    """With the token as ``Bearer``, unless it names its own scheme."""
    if authorization is None:
        return dict(headers)
    token = authorization.strip()
    named = token.lower().startswith(("bearer ", "basic "))
    return {**headers, "authorization": token if named else f"Bearer {token}"}


def _is_value(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= MAX_VALUE_CHARACTERS


def _invalid(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{param}': {why}.", param=param, code="invalid_value")


def _place(url: str) -> tuple[str, str]:
    try:
        split = urlsplit(url)
    except ValueError:
        return url, ""
    return split.netloc.lower(), split.path.strip("/")
