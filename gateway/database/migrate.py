"""Bringing the schema up to date: at every start, and by ``understudy db upgrade``."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from gateway.database.engine import WRITES, Database

__all__ = [
    "DatabaseTooNew",
    "SchemaMismatch",
    "current_revision",
    "newest_revision",
    "upgrade",
]

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "migrations"
_FILE = re.compile(r"v(\d{4})_\w+\.py")
_LOCK = 0x756E6465727374  # PostgreSQL's advisory lock: "underst", as any number would do


class SchemaMismatch(Exception):
    """What lies in the database is not for this version; waiting doesn't help."""


class DatabaseTooNew(SchemaMismatch):
    """A newer version has changed the schema; this one could damage what it doesn't know."""


def newest_revision() -> str:
    """The revision that this version of Understudy works with, such as ``0001``."""
    return max(found[1] for file in _FOLDER.glob("versions/*.py") if (found := _number(file)))


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at; ``None`` before the first one.

    Raises ``UpstreamUnavailable``.
    """
    async with database.read() as session:
        return await (await session.connection()).run_sync(_revision)


async def upgrade(database: Database) -> str | None:
    """Take the steps that are missing; the new revision, or ``None`` if there was nothing to do.

    Any number of processes and replicas may call this at once: one does it and the others wait.
    A step is taken whole or not at all. Raises ``DatabaseTooNew`` and ``UpstreamUnavailable``.
    """
    if _check(await current_revision(database)):
        return None
    async with database.alone() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():  # on SQLite this is the lock, for other processes as well
            if not database.is_sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            before = await connection.run_sync(_revision)
            if _check(before):
                return None
            await connection.run_sync(_take_steps)
    newest = newest_revision()
    logger.info("The database's schema is at %s now, it was at %s", newest, before or "nothing")
    return newest


def _number(file: Path) -> re.Match[str] | None:
    return _FILE.fullmatch(file.name)


def _check(revision: str | None) -> bool:
    """Whether there is nothing to do. Raises ``DatabaseTooNew``."""
    newest = newest_revision()
    if revision is not None and revision > newest:
        raise DatabaseTooNew(
            f"The database's schema is at revision {revision}; this version of Understudy knows "
            f"revisions up to {newest}. Run the version that wrote it, or a newer one."
        )
    return revision == newest


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _take_steps(connection: Connection) -> None:
    """In the transaction that is open, which Alembic leaves to its owner."""
    # Imported here: almost every start finds nothing to do and needs none of it.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    command.upgrade(config, "head")
