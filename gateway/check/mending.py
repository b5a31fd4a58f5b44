"""What helps against an error that any system may answer with."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from gateway.errors import GatewayError

__all__ = ["causes", "mend_of"]

_UNREACHABLE = (
    "Compare the address with where it listens, and see whether it runs and whether a firewall or "
    "NetworkPolicy lets this machine through."
)
_BY_CODE = {
    "upstream_unreachable": _UNREACHABLE,
    "upstream_connect_timeout": _UNREACHABLE,
    "upstream_refused_credentials": (
        "Give its api_key or api_key_file, or renew it: the server, or a proxy before it, wants a "
        "bearer token that it knows."
    ),
    "upstream_redirected": "Give its api_key or api_key_file: a login page stands before it.",
    "upstream_tls_failed": (
        "Name the authority of its certificate in ca_file, write the host name that the "
        "certificate is for, or http:// where it doesn't speak TLS."
    ),
    "upstream_disconnected": "See whether it speaks TLS (https://), and look into its log.",
    "bad_upstream_answer": "See whether the address is that of another server.",
    "upstream_timeout": "See whether it is overloaded; --timeout waits longer.",
}
_ELSE = "Look into its log."


def mend_of(error: GatewayError) -> str:
    """By the error's code, or by what its cause says where that is more exact."""
    if "credentials" in error.message:
        return _BY_CODE["upstream_refused_credentials"]
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError):
            return _BY_CODE["upstream_tls_failed"]
        if isinstance(cause, socket.gaierror):
            return "Correct the host: no name server that is asked here knows it."
    return _BY_CODE.get(error.code or "", _ELSE)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came of, the database's own error included."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        original = getattr(found, "orig", None)
        found = original if isinstance(original, BaseException) else found.__cause__
