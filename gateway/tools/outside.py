"""What lies outside and tools are run with: tool servers, a search engine, the web."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from gateway.ports import ToolServer, WebFetcher, WebSearch

__all__ = ["Outside"]

logger = logging.getLogger(__name__)


class Outside(Struct, frozen=True, kw_only=True):
    """``search`` is ``None`` where no engine is configured."""

    servers: ToolServer
    fetcher: WebFetcher
    search: WebSearch | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Closes all of it at the end; one that fails doesn't keep the next one open."""
        try:
            yield
        finally:
            for one in (self.servers, self.fetcher, self.search):
                if one is None:
                    continue
                try:
                    await one.aclose()
                except Exception:
                    logger.exception("Closing failed")
