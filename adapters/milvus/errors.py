"""What Milvus, its client or the way to it said, in the gateway's terms."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from gateway.errors import (
    GatewayError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)

__all__ = ["CollectionMissing", "CollectionNotLoaded", "is_exists", "translate"]

_LOG = logging.getLogger(__name__)

_CONNECT_FAILED = 2  # of the client itself; Milvus means the same by it: service unavailable
_COLLECTION_MISSING = 100
_NOT_LOADED = frozenset({101, 103})  # not at all, not fully
_DATABASE_MISSING = 800
_INDEX_EXISTS = 35
_CREDENTIALS = frozenset({1400, 1401, 1402, 1403})
_BUSY = frozenset({2, 3, 4, 7, 8, 9, 12, 503, 901, 902})
"""Memory, disk or rate limits, and parts of the server that are starting or moving."""

_SERVER_NOT_READY = 1  # for a server; Lite means anything by it
_ADDRESS = re.compile(
    r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\])(?::\d+)?|unix:\S+", re.IGNORECASE
)
_NO_DATABASE = re.compile(r"database\b.*\bnot found")
_LONGEST = 400


class CollectionMissing(Exception):
    """There is no such collection (any more)."""


class CollectionNotLoaded(Exception):
    """The collection is there but not in memory: after a restart of Milvus Lite, or released."""


def is_exists(error: Exception) -> bool:
    """Whether this says that the collection or index to create is there already."""
    text = str(getattr(error, "message", "")).lower()
    return getattr(error, "code", None) == _INDEX_EXISTS or "already exist" in text


def translate(error: Exception, *, lite: bool, secrets: Sequence[str] = ()) -> Exception:
    """The error to raise for one of the client's.

    One of the two above, or a ``GatewayError`` whose message has neither a secret nor an address.
    """
    code: Any = getattr(error, "code", None)
    name = _status_name(code() if callable(code) else code)
    if name is not None:
        return _of_transport(name, error)
    if not isinstance(code, int):
        _LOG.warning("The client of Milvus failed: %r", error)
        return UpstreamError(f"The vector database's client failed: {type(error).__name__}.")
    text = _clean(str(getattr(error, "message", "")), secrets)
    if code == _COLLECTION_MISSING:
        return CollectionMissing(text)
    if code in _NOT_LOADED:
        return CollectionNotLoaded(text)
    return _of_milvus(code, text, lite=lite)


def _of_milvus(code: int, text: str, *, lite: bool) -> GatewayError:
    if code == _CONNECT_FAILED and "Fail connecting" in text:
        return UpstreamUnreachable("The vector database can't be reached.")
    if code == _DATABASE_MISSING or _NO_DATABASE.match(text):
        return UpstreamError(
            f"The vector database has no database of this name: {text}. "
            "Create it, or change vectors.database."
        )
    if code in _CREDENTIALS or "auth check failure" in text:
        return UpstreamError("The vector database refuses the credentials in vectors.token.")
    if code in _BUSY or (code == _SERVER_NOT_READY and not lite and "not ready" in text):
        return UpstreamUnavailable(f"The vector database can't do that now: {text}")
    if "Retry timeout" in text:
        return UpstreamTimeout("The vector database did not answer in time.")
    return UpstreamError(f"The vector database failed: {text}")


def _of_transport(name: str, error: Exception) -> GatewayError:
    match name:
        case "DEADLINE_EXCEEDED":
            return UpstreamTimeout("The vector database did not answer in time.")
        case "UNAVAILABLE" | "CANCELLED":
            return UpstreamUnreachable("The vector database can't be reached.")
        case "RESOURCE_EXHAUSTED":
            return UpstreamUnavailable("The vector database is busy.")
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return UpstreamError("The vector database refuses the credentials in vectors.token.")
    _LOG.warning("A call to Milvus failed: %r", error)
    return UpstreamError(f"A call to the vector database failed: {name}.")


def _status_name(code: Any) -> str | None:
    """The name of a gRPC status. The client also raises its own error with one as the code."""
    name = getattr(code, "name", None)
    return name if isinstance(name, str) and not isinstance(code, int) else None


def _clean(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _ADDRESS.sub("…", text).strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
