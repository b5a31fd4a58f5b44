"""The connection to the database, SQLite or PostgreSQL."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from gateway.settings import DatabaseSettings

__all__ = ["Database"]

_WRITES = "understudy_writes"
"""The execution option of connections that are going to write."""

_BUSY_SECONDS = 30
"""How long a write waits for another process's write to SQLite."""


class Database:
    """Transactions on the one database.

    ``async with database.begin() as session`` is a transaction that commits at the end of the
    block and rolls back when it raises; ``database.read()`` is for reading only. On SQLite
    ``begin`` takes the write lock at once, so that what was read in it still holds when it writes.
    """

    def __init__(self, settings: DatabaseSettings, data_dir: Path) -> None:
        self._file = data_dir / "understudy.db"
        self.url = make_url(settings.url or f"sqlite+aiosqlite:///{self._file}")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._make_engine(settings)
        self._reading = async_sessionmaker(self.engine, expire_on_commit=False)
        self._writing = async_sessionmaker(
            self.engine.execution_options(**{_WRITES: True}), expire_on_commit=False
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        async with self._writing() as session, session.begin():
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with self._reading() as session:
            yield session

    async def answers(self) -> bool:
        """Whether the database can be asked now."""
        try:
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            return False
        return True

    async def aclose(self) -> None:
        await self.engine.dispose()

    def _make_engine(self, settings: DatabaseSettings) -> AsyncEngine:
        if not self.is_sqlite:
            arguments: dict[str, Any] = {}
            if settings.ca_file is not None:
                arguments["ssl"] = ssl.create_default_context(cafile=settings.ca_file)
            return create_async_engine(
                self.url,
                pool_size=settings.pool_size,
                max_overflow=settings.pool_size,
                pool_pre_ping=True,
                pool_timeout=_BUSY_SECONDS,
                connect_args=arguments,
            )
        if self.url.database and self.url.database != ":memory:":
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(self.url, connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where this module says
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",  # readers don't wait for a writer
        "synchronous = FULL",  # what was acknowledged survives a power cut
        "foreign_keys = ON",
        f"busy_timeout = {_BUSY_SECONDS * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
