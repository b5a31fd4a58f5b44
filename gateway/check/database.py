"""The database: reachable, with a schema that this version works with, and rights to change it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from gateway.check.files import not_there, writable
from gateway.check.finding import Outcome, failed, fine, warned
from gateway.check.mending import causes, mend_of
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems
from gateway.database.migrate import current_revision, newest_revision
from gateway.errors import UpstreamUnavailable

__all__ = ["probes", "sqlite_file"]

_UPGRADE = "Start the server, which makes it, or run `understudy db upgrade` before."
_REFUSED = {
    "28P01": (
        "PostgreSQL refuses the user or the password",
        "Correct the user and password in database.url; encode characters such as @ in them.",
    ),
    "28000": (
        "PostgreSQL refuses the user",
        "Allow the user from this address in pg_hba.conf, or over TLS by database.ca_file.",
    ),
    "3D000": (
        "PostgreSQL has no database of this name",
        "Create it, or correct the name in database.url.",
    ),
    "42501": (
        "the user may not read the schema's tables",
        "Grant the user all on the schema and its tables.",
    ),
    "53300": (
        "PostgreSQL has no connection left",
        "Raise its max_connections, or lower database.pool_size.",
    ),
    "57P03": ("PostgreSQL is starting or shutting down", "Try again in a moment."),
}
_POOLS = 2
"""A pool may grow to twice its size."""


def sqlite_file(systems: Systems) -> Path | None:
    """The file of SQLite; ``None`` for a server."""
    url = _url(systems)
    sqlite = url.get_backend_name() == "sqlite"
    return Path(url.database or ":memory:").absolute() if sqlite else None


def _url(systems: Systems) -> URL:
    given = systems.settings.database.url
    return make_url(given or f"sqlite+aiosqlite:///{systems.data_dir}/understudy.db")


def probes(systems: Systems) -> list[Probe]:
    url, file = _url(systems), sqlite_file(systems)
    if file is not None:
        address = str(file)
    else:
        port = f":{url.port}" if url.port else ""
        address = f"{url.get_backend_name()}://{url.host or ''}{port}/{url.database or ''}"

    async def look() -> list[Outcome]:
        if file is not None:
            return await _look_at_sqlite(systems, file)
        return await _look_at_postgres(systems)

    return [Probe(system="database", address=address, look=look)]


async def _look_at_sqlite(systems: Systems, file: Path) -> list[Outcome]:
    found = []
    if systems.settings.server.workers > 1:
        found.append(
            warned(
                f"server.workers is {systems.settings.server.workers}, and SQLite takes one write "
                "at a time",
                "Use PostgreSQL (database.url), or one worker.",
            )
        )
    if missing := await not_there(file, "database.url"):
        return [*found, missing]
    mend = "Let this user write there, or name another file in database.url."
    if why := await asyncio.to_thread(writable, file.parent):
        return [*found, failed(f"can't be written: {why}", mend)]
    return [*found, await _look_at_schema(systems, "SQLite", mend)]


async def _look_at_postgres(systems: Systems) -> list[Outcome]:
    try:
        async with closed_after(systems.database()) as database, database.read() as session:
            version = (await session.execute(text("SHOW server_version"))).scalar_one()
            most = int((await session.execute(text("SHOW max_connections"))).scalar_one())
            may = (
                await session.execute(
                    text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
                )
            ).scalar_one()
    except UpstreamUnavailable as error:
        return [_why(error)]
    found = [await _look_at_schema(systems, f"PostgreSQL {version.partition(' ')[0]}", "")]
    if not may:
        found.append(
            warned(
                "the user may not create tables, which an upgrade of the schema needs",
                "GRANT CREATE ON SCHEMA public to the user, or run `understudy db upgrade` as "
                "another one before each update.",
            )
        )
    settings = systems.settings
    wanted = settings.database.pool_size * _POOLS * settings.server.workers
    if wanted > most:
        found.append(
            warned(
                f"one replica may open {wanted} connections ({_POOLS} times database.pool_size "
                f"for each of server.workers), and PostgreSQL takes {most}",
                "Lower database.pool_size, or raise max_connections.",
            )
        )
    return found


async def _look_at_schema(systems: Systems, engine: str, mend: str) -> Outcome:
    try:
        async with closed_after(systems.database()) as database:
            revision = await current_revision(database)
    except UpstreamUnavailable as error:
        return _why(error, mend)
    newest = newest_revision()
    if revision is None:
        return warned(f"{engine}, without a schema yet", _UPGRADE)
    if revision == newest:
        return fine(f"{engine}, schema {revision} is current")
    if revision < newest:
        return warned(
            f"{engine}, schema {revision} is behind: this version works with {newest}", _UPGRADE
        )
    return failed(
        f"{engine}, schema {revision} is ahead: this version knows revisions up to {newest}",
        "Run the version of Understudy that wrote it, or a newer one.",
    )


def _why(error: UpstreamUnavailable, mend: str = "") -> Outcome:
    """The cause, which callers of the API don't learn."""
    words = ""
    for cause in causes(error):
        state = str(getattr(cause, "sqlstate", None) or "")
        if state in _REFUSED:
            return failed(*_REFUSED[state])
        if isinstance(cause, ssl.SSLError) or "SSL" in str(cause):
            return failed(
                "no safe connection: " + (getattr(cause, "verify_message", "") or "TLS failed"),
                "Name the authority of PostgreSQL's certificate in database.ca_file; without TLS "
                "there, leave ca_file and ssl out.",
            )
        if cause is not error:
            words = str(cause).partition("\n")[0]
    return failed(f"can't be reached: {words}", mend or mend_of(error))
