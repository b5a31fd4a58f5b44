"""Reading what a caller's URL points to."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

__all__ = ["FetchedPage", "WebFetcher"]


class FetchedPage(Struct, frozen=True, kw_only=True):
    """The whole content of a URL; ``media_type`` without parameters, lower case."""

    data: bytes
    media_type: str
    filename: str


class WebFetcher(Protocol):
    """Fetches URLs that callers name, within the policy that is configured."""

    async def fetch(self, url: str, *, max_bytes: int, param: str) -> FetchedPage:
        """GET it. Raises ``InvalidRequest`` naming ``param`` for a URL that may not be fetched
        (scheme, host, a private address, redirects), that answers otherwise than 200, takes too
        long or is larger than ``max_bytes``.
        """

    async def aclose(self) -> None:
        """Close connections."""
