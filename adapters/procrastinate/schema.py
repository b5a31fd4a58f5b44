"""procrastinate's tables and functions, put into the database once."""

from __future__ import annotations

import logging

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database.engine import Database
from gateway.database.migrate import SchemaMismatch

__all__ = ["QueueOutdated", "install"]

logger = logging.getLogger(__name__)

_LOCK = 0x70726F63726173  # PostgreSQL's advisory lock: "procras", as any number would do

_STATE = text("""
    SELECT to_regclass('procrastinate_jobs') IS NOT NULL AS there,
           to_regtype('procrastinate_job_to_defer_v1') IS NOT NULL
           AND to_regprocedure('procrastinate_fetch_job_v2(varchar[], bigint)') IS NOT NULL
           AS current
""")


class QueueOutdated(SchemaMismatch):
    """Another version of procrastinate has made the tables that are there."""


async def install(database: Database) -> bool:
    """Make the tables unless they are there; whether it did. Any number of replicas may call it.

    Raises ``QueueOutdated`` and ``UpstreamUnavailable``.
    """
    async with database.read() as session:
        if await _installed(await session.connection()):
            return False
    async with database.alone() as connection, connection.begin():
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if await _installed(connection):
            return False
        # Imported here, since it loads much and most starts find the tables in place.
        from procrastinate.schema import SchemaManager

        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        # Past SQLAlchemy, as it is many statements in one; it is in the same transaction.
        await raw.execute(SchemaManager.get_schema())
    logger.info("The queue's tables are in place now")
    return True


async def _installed(connection: AsyncConnection) -> bool:
    state = (await connection.execute(_STATE)).one()
    if state.there and not state.current:
        raise QueueOutdated(
            "The database holds tables of an older procrastinate. Bring them up to date with its "
            "own migrations, or give Understudy a database or schema of its own."
        )
    return bool(state.there)
