"""When certificates expire, read from their bytes: the standard library only tells of a peer's."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

__all__ = ["ends_of"]

_PEM = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_VERSION = 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm, issuer."""


def ends_of(pem: str) -> list[float]:
    """When each certificate of a PEM file ends, in seconds since the epoch.

    Raises ``ValueError`` where there is none, or one that can't be read.
    """
    found = [
        _end(ssl.PEM_cert_to_DER_cert(one.replace("TRUSTED ", ""))) for one in _PEM.findall(pem)
    ]
    if not found:
        raise ValueError("no certificate")
    return found


def _end(certificate: bytes) -> float:
    """Of ``{{[0] version, serial, algorithm, issuer, {start, end}, …}, …}``, RFC 5280's form."""
    try:
        _, body, _ = _element(certificate)
        _, rest, _ = _element(body)
        tag, _, after = _element(rest)
        if tag == _VERSION:
            rest = after
        for _ in range(_BEFORE_VALIDITY):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, end = _element(validity)
        tag, text, _ = _element(end)
    except IndexError:
        raise ValueError("a certificate that is cut off") from None
    return _time(tag, text.decode("ascii"))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what comes after it."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    return tag, data[start : start + length], data[start + length :]


def _time(tag: int, text: str) -> float:
    if tag == _UTC_TIME:
        year = int(text[:2])  # of 1950 to 2049
        text = f"{1900 + year if year >= 50 else 2000 + year}{text[2:]}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate without its time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
