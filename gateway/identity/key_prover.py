"""Whose an API key is, as the database says."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import ApiKeyRow
from gateway.errors import Unauthenticated, UpstreamError, UpstreamUnavailable
from gateway.identity.api_keys import SECRET_PREFIX, digest_of
from gateway.identity.authenticator import Proven
from gateway.identity.key_repository import ApiKeyRepository
from gateway.identity.principal import Principal
from gateway.settings import ApiKeySettings

__all__ = ["ApiKeys"]

logger = logging.getLogger(__name__)

USE_NOTED_SECONDS = 60.0
"""How often it is written down which keys were used."""

_MOST_NOTED = 10_000
_KEYS_IN_ONE_STATEMENT = 500
_SECRET = re.compile(re.escape(SECRET_PREFIX) + r"[A-Za-z0-9_-]{43}")


class ApiKeys:
    """A prover that asks the database once for each key and ``cache_seconds``.

    What doesn't look like a key is refused without asking.
    """

    def __init__(self, database: Database, settings: ApiKeySettings) -> None:
        self._database = database
        self._settings = settings
        self._used: set[str] = set()
        self.refusal_seconds = settings.cache_seconds

    async def prove(self, token: str) -> Proven:
        if _SECRET.fullmatch(token) is None:
            raise Unauthenticated("Incorrect API key provided.")
        digest = digest_of(token)
        try:
            async with self._database.read() as session:
                row = await ApiKeyRepository(session).find(digest)
        except ProgrammingError as error:  # PostgreSQL's word for a table that isn't there yet
            raise UpstreamUnavailable(
                "The database is not ready yet.", code="database_unavailable"
            ) from error
        if row is None:
            raise Unauthenticated("Incorrect API key provided.")
        left = self._seconds_left(row, digest)
        if len(self._used) < _MOST_NOTED:
            self._used.add(row.id)
        return Proven(
            principals=[
                Principal(
                    project=row.project,
                    subject=row.name or None,
                    key_id=row.id,
                    scopes=frozenset(row.scopes),
                    models=frozenset(row.models) if row.models is not None else None,
                )
            ],
            seconds=min(self._settings.cache_seconds, left),
            at_worst_seconds=min(self._settings.outage_seconds, left),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        noting = asyncio.create_task(self._note_uses(), name="use of API keys")
        try:
            yield
        finally:
            noting.cancel()
            with suppress(asyncio.CancelledError):
                await noting
            await self._note()

    def _seconds_left(self, row: ApiKeyRow, digest: str) -> float:
        """How long it is good yet. Raises ``Unauthenticated`` where it isn't any more."""
        ends = [row.expires_at] if row.expires_at is not None else []
        if digest != row.digest:
            ends.append(row.previous_until or 0)
        left = min(ends) - now() if ends else float("inf")
        if row.revoked_at is not None or left <= 0:
            raise Unauthenticated("This API key has expired or was revoked.")
        return left

    async def _note_uses(self) -> None:
        while True:
            await asyncio.sleep(USE_NOTED_SECONDS)
            await self._note()

    async def _note(self) -> None:
        """Nobody is the worse off where it can't be written down."""
        used, self._used = sorted(self._used), set()
        try:
            for start in range(0, len(used), _KEYS_IN_ONE_STATEMENT):
                async with self._database.begin() as session:
                    part = used[start : start + _KEYS_IN_ONE_STATEMENT]
                    await ApiKeyRepository(session).note_use(part, now())
        except UpstreamError as error:
            logger.warning("Which API keys were used is not written down: %s", error.message)
        except SQLAlchemyError:  # a table that isn't there yet, a row that another one locks
            logger.warning("Which API keys were used is not written down", exc_info=True)
