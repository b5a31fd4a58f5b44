"""What callers carry from one request to the next without looking into it.

Opaque, but no secret of the gateway's: it holds nothing that its caller doesn't have anyway.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.http.validation import NOT_JSON

__all__ = ["seal", "unseal"]

_SEAL = "understudy-1:"


class _Sealed(Struct, frozen=True):
    text: str


def seal(text: str) -> str:
    """A text as ``encrypted_content``."""
    return _SEAL + base64.b64encode(msgspec.json.encode(_Sealed(text))).decode()


def unseal(content: str, param: str = "input") -> str:
    """Raises ``InvalidRequest`` for what :func:`seal` has not made."""
    sealed = content.removeprefix(_SEAL)
    try:
        decoded = msgspec.json.decode(base64.b64decode(sealed, validate=True), type=_Sealed)
    except (binascii.Error, ValueError, *NOT_JSON):
        raise InvalidRequest(
            "The encrypted_content of an item could not be read: it is not one of this gateway's.",
            param=param,
            code="invalid_encrypted_content",
        ) from None
    return decoded.text
