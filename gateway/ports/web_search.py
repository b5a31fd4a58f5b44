"""A search engine for the web."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

__all__ = ["WebPage", "WebSearch", "WebSearchFailed"]

ContextSize = Literal["low", "medium", "high"]


class WebSearchFailed(Exception):
    """The engine can't be reached or refuses; ``message`` may be shown and holds no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class WebPage(Struct, frozen=True, kw_only=True):
    """A page that was found; ``text`` is what the engine shows of it."""

    url: str
    title: str
    text: str


class WebSearch(Protocol):
    """One search engine."""

    async def search(
        self,
        query: str,
        *,
        limit: int,
        allowed_domains: tuple[str, ...] = (),
        country: str | None = None,
    ) -> list[WebPage]:
        """Pages, best first. Raises :class:`WebSearchFailed`.

        ``allowed_domains`` keeps only pages of these domains and their subdomains; ``country`` is
        a two-letter code.
        """

    async def aclose(self) -> None:
        """Close connections."""
