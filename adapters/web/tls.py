"""TLS to servers outside: one context for each private authority."""

from __future__ import annotations

import ssl
from functools import cache

__all__ = ["context_for"]


@cache
def context_for(ca_file: str | None) -> ssl.SSLContext:
    """Verifies against the system's trust store, and against ``ca_file`` as well.

    Raises ``OSError`` or ``ssl.SSLError`` for a file that can't be used. Settings name the files,
    so there are few.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
