"""Adding up what is used, beside the requests: they leave numbers here and wait for nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import time

from sqlalchemy.exc import SQLAlchemyError

from gateway.database.engine import Database
from gateway.database.outage import Outage
from gateway.errors import ClientDisconnected, UpstreamError
from gateway.identity.principal import Principal
from gateway.limits.estimate import used_tokens
from gateway.observability.call import ModelCall
from gateway.observability.metrics import Metrics
from gateway.usage.repository import Amounts, UsageKey, UsageRepository

__all__ = ["UsageRecorder"]

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""How much of the usage a process that is killed takes with it."""

_HOUR = 3600
_MOST_KEYS = 20_000
"""What is kept at most while the database is away; further keys are counted as lost."""

_NO_FAILURES = frozenset({None, ClientDisconnected.default_code, "cancelled"})


class UsageRecorder:
    """Of one process. Writes every few seconds, and what is left at the end."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._outage = Outage(logger, "Writing usage")
        self._noted: dict[UsageKey, Amounts] = {}

    def add(self, principal: Principal, model: str, call: ModelCall) -> None:
        """A call is over."""
        hour = int(time()) // _HOUR * _HOUR
        key = (hour, principal.project, principal.key_id or "", model, call.operation.name)
        amounts = self._noted.get(key)
        if amounts is None:
            if len(self._noted) >= _MOST_KEYS:
                self._metrics.usage_lost(1)
                return
            amounts = self._noted[key] = Amounts()
        given, made, estimated = used_tokens(call)
        amounts.requests += 1
        amounts.input_tokens += given
        amounts.output_tokens += made
        if estimated:
            amounts.estimated += 1
        if call.error_type not in _NO_FAILURES:
            amounts.errors += 1
        usage = call.usage
        if usage is not None and (details := usage.prompt_tokens_details) is not None:
            amounts.cached_tokens += details.cached_tokens or 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write while the block runs, and what is left at its end."""
        over = asyncio.Event()
        writing = asyncio.create_task(self._write_until(over), name="usage")
        try:
            yield
        finally:
            # Not cancelled: nobody could tell whether what it is writing then was written.
            over.set()
            await writing
            await self.write()  # what came while it wrote
            if self._noted:
                lost = sum(amounts.requests for amounts in self._noted.values())
                logger.error("The usage of %d requests could not be written down", lost)
                self._metrics.usage_lost(lost)

    async def write(self) -> None:
        """Write what was noted. Never raises: what fails is written with the next."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            async with self._database.begin() as session:
                await UsageRepository(session).add(noted)
        except (UpstreamError, SQLAlchemyError, OSError) as error:
            self._put_back(noted)
            self._outage.noticed(type(error).__name__)
        except Exception:  # a fault of ours must not end the writing for good
            self._put_back(noted)
            logger.exception("Usage was not written; it is tried again")
        except asyncio.CancelledError:
            self._put_back(noted)
            raise
        else:
            self._outage.over()

    def _put_back(self, noted: dict[UsageKey, Amounts]) -> None:
        meanwhile, self._noted = self._noted, noted
        for key, amounts in meanwhile.items():
            if (earlier := noted.get(key)) is not None:
                earlier.add(amounts)
            elif len(noted) < _MOST_KEYS:
                noted[key] = amounts
            else:
                self._metrics.usage_lost(amounts.requests)

    async def _write_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await over.wait()
            await self.write()
