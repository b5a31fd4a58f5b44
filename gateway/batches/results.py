"""The results of lines on their way to the database, several in one commit."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from gateway.batches.claims import BatchClaims, Claim, DoneLine, NotWanted
from gateway.errors import UpstreamUnavailable

__all__ = ["LineSink"]

logger = logging.getLogger(__name__)

_LINES = 64
_BYTES = 4 * 1024 * 1024
_SECONDS = 0.5
"""A result is written once so many, so much or so long a time have gathered."""

_OUTAGE_SECONDS = 1.0


class LineSink:
    """Takes results and writes them, in groups.

    While the database is away, results are kept and whoever brings more waits.
    """

    def __init__(self, claims: BatchClaims, claim: Claim) -> None:
        self._claims = claims
        self._claim = claim
        self._waiting: list[DoneLine] = []
        self._bytes = 0
        self._writing = asyncio.Lock()

    async def add(self, line: DoneLine) -> None:
        """Raises ``NotWanted``, as the others do."""
        self._waiting.append(line)
        self._bytes += len(line.result)
        if len(self._waiting) >= _LINES or self._bytes >= _BYTES:
            await self.flush()

    async def run(self) -> None:
        """Write what has waited long enough, until cancelled or not wanted."""
        with suppress(NotWanted):  # which the batch's watch is about to see
            while True:
                await asyncio.sleep(_SECONDS)
                await self.flush()

    async def flush(self) -> None:
        """Write all that is there."""
        async with self._writing:
            while self._waiting:
                group = self._waiting[:_LINES]
                try:
                    await self._claims.add_lines(self._claim, group)
                except UpstreamUnavailable as error:
                    logger.warning("Results of a batch wait: %s", error.message)
                    await asyncio.sleep(_OUTAGE_SECONDS)
                    continue
                del self._waiting[: len(group)]
                self._bytes -= sum(len(line.result) for line in group)
