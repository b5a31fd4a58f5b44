"""The connection to the database, SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, NullPool, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,  # noqa: A004  (the pool's)
)
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from gateway.database.outage import Outage
from gateway.database.session import WholeSession
from gateway.errors import UpstreamUnavailable
from gateway.settings import DatabaseSettings

__all__ = ["Database"]

logger = logging.getLogger(__name__)

WRITES = "understudy_writes"
"""The execution option of connections that are going to write."""

_BUSY_SECONDS = 30
"""How long a write waits for another process's write to SQLite."""

_CONNECT_SECONDS = 5
"""How long a connection to PostgreSQL may take to come about, or to become free in the pool."""

_STATEMENT_SECONDS = 60
"""How long PostgreSQL may take for one statement; a server that hangs answers none."""

_ANSWER_SECONDS = 3

_PASSING = ("08", "40", "53", "55", "57")
"""Classes of SQLSTATE that say nothing about the statement: connection lost, transaction rolled
back by the server, out of resources, object in use, server shutting down or starting."""

_JSON: dict[str, Any] = {
    "json_serializer": lambda value: msgspec.json.encode(value).decode(),
    "json_deserializer": msgspec.json.decode,
}
"""Several times as quick as the standard library's, which shows where many chunks are read."""


class Database:
    """Transactions on the one database.

    ``async with database.begin() as session`` is a transaction that commits at the end of the
    block and rolls back when it raises; ``database.read()`` is for reading only. On SQLite
    ``begin`` takes the write lock at once, so that what was read in it still holds when it writes.

    A database that can't be reached, hangs or is too busy is ``UpstreamUnavailable`` in all of
    them. What is wrong with a statement or breaks a constraint stays SQLAlchemy's error.
    """

    def __init__(self, settings: DatabaseSettings, data_dir: Path) -> None:
        self._settings = settings
        self._outage = Outage(logger, "The database")
        self._file = data_dir / "understudy.db"
        self.url = make_url(settings.url or f"sqlite+aiosqlite:///{self._file}")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._make_engine()
        self._reading = _sessions(self.engine)
        self._writing = _sessions(self.engine.execution_options(**{WRITES: True}))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        with _translated(self._outage):
            async with self._writing() as session:
                await _connect(session, self._outage)
                yield session
                await session.commit()  # what is not committed, closing rolls back

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        with _translated(self._outage):
            async with self._reading() as session:
                await _connect(session, self._outage)
                yield session

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own, outside the pool and without a limit on its statements' time.

        For what takes long (a change of the schema) or listens. No transaction is begun.
        """
        engine = self._make_engine(alone=True)
        try:
            with _translated(self._outage):
                try:
                    connection = await engine.connect()
                except (SQLAlchemyError, OSError) as error:
                    raise _unavailable(error, self._outage) from error
                try:
                    yield connection
                finally:
                    await connection.close()
        finally:
            await engine.dispose()

    async def answers(self) -> bool:
        """Whether the database can be asked now."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            return False
        return True

    async def aclose(self) -> None:
        await self.engine.dispose()

    def _make_engine(self, *, alone: bool = False) -> AsyncEngine:
        pool: dict[str, Any] = {"poolclass": NullPool} if alone else {}
        if not self.is_sqlite:
            arguments: dict[str, Any] = {"timeout": _CONNECT_SECONDS}
            if self._settings.ca_file is not None:
                arguments["ssl"] = ssl.create_default_context(cafile=self._settings.ca_file)
            if not alone:
                arguments["command_timeout"] = _STATEMENT_SECONDS
                size = self._settings.pool_size
                pool = {"pool_size": size, "max_overflow": size, "pool_pre_ping": True}
                pool["pool_timeout"] = _CONNECT_SECONDS
            engine = create_async_engine(
                self.url, connect_args=arguments, hide_parameters=True, **_JSON, **pool
            )
            on_error = partial(_on_error, self._outage)
            event.listen(engine.sync_engine, "handle_error", on_error, retval=True)
            return engine
        if self.url.database and self.url.database != ":memory:":
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(
            self.url,
            connect_args={"timeout": _BUSY_SECONDS},
            hide_parameters=True,
            **_JSON,
            **pool,
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine


def _sessions(engine: AsyncEngine) -> async_sessionmaker[WholeSession]:
    return async_sessionmaker(engine, class_=WholeSession, expire_on_commit=False)


async def _connect(session: AsyncSession, outage: Outage) -> None:
    """Get the connection now: whatever goes wrong here, it isn't the block's own fault."""
    try:
        await session.connection()
    except (SQLAlchemyError, OSError) as error:
        raise _unavailable(error, outage) from error
    outage.over()


def _on_error(outage: Outage, context: ExceptionContext) -> BaseException | None:
    """Time limits and broken sockets of asyncpg, which SQLAlchemy doesn't make its own errors."""
    error = context.original_exception
    return _unavailable(error, outage) if isinstance(error, OSError) else None


@contextmanager
def _translated(outage: Outage) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise _unavailable(error, outage) from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(_PASSING):
            raise _unavailable(error, outage) from error
        raise


def _unavailable(error: Exception, outage: Outage) -> UpstreamUnavailable:
    """The log has the cause; the caller learns no address."""
    cause = str(error).partition("\n")[0] or type(error).__name__
    outage.noticed(cause)
    return UpstreamUnavailable(
        "The database can't be reached at the moment.", code="database_unavailable"
    )


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where this module says
    connection.run_async(_write_ahead)
    cursor = connection.cursor()
    for pragma in (
        "synchronous = FULL",  # what was acknowledged survives a power cut
        "foreign_keys = ON",
        f"busy_timeout = {_BUSY_SECONDS * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _write_ahead(driver: Any) -> None:
    """Readers don't wait for a writer, once a new file's journal is changed to this.

    Of several connections that change it at the same time SQLite refuses all but one, at once or
    after they have waited for each other, whichever its time limit is: they have to try again.
    """
    await driver.execute_fetchall("PRAGMA busy_timeout = 100")
    deadline = asyncio.get_running_loop().time() + _BUSY_SECONDS
    while True:
        try:
            await driver.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            late = asyncio.get_running_loop().time() > deadline
            if late or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        else:
            return
        await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311  (no secret)


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITES, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
