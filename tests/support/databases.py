"""Databases for tests: SQLite and a real PostgreSQL, each test with one of its own.

    async def test_…(database: Database):              # runs twice, once on each
        async with database.begin() as session: …

    def test_…(postgres_url: str): …                   # PostgreSQL only, its schema in place

`tests/conftest.py` makes the fixtures known. The schema is made once and then copied.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from adapters.procrastinate.schema import install
from gateway.database.engine import Database
from gateway.database.migrate import upgrade
from gateway.settings import DatabaseSettings
from tests.support.postgres import PostgresServer

__all__ = [
    "database",
    "database_settings",
    "open_database",
    "postgres",
    "postgres_template",
    "postgres_url",
    "sqlite_template",
    "sqlite_url",
    "sqlite_with_schema",
]


def sqlite_url(tmp_path: Path) -> str:
    """A file in this folder, as ``DatabaseSettings`` has it."""
    return f"sqlite+aiosqlite:///{tmp_path / 'understudy.db'}"


def open_database(url: str) -> Database:
    """A database as the gateway opens it, without anything in it but what is there."""
    return Database(DatabaseSettings(url=url), Path("/nonexistent"))


def _make(url: str) -> None:
    """In a thread: a fixture that runs in an event loop may be the first to ask for it."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _make_schema(url)).result()


async def _make_schema(url: str) -> None:
    database = open_database(url)
    await upgrade(database)
    if not database.is_sqlite:
        await install(database)  # the queue's
    await database.aclose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that all tests share; who stops or freezes one starts one of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database with the schema, to be copied."""
    url = postgres.create_database()
    _make(url)
    return url.rpartition("/")[2]


@cache
def sqlite_with_schema() -> Path:
    """A file with the schema, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="understudy-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _make(sqlite_url(folder))
    return folder / "understudy.db"


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A file with the schema, to be copied."""
    return sqlite_with_schema()


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A new database on PostgreSQL with the schema in place."""
    url = postgres.create_database(postgres_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_settings(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """Settings of a new database with the schema in place, on each kind there is."""
    if request.param == "postgresql":
        return DatabaseSettings(url=request.getfixturevalue("postgres_url"))
    shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "understudy.db")
    return DatabaseSettings(url=sqlite_url(tmp_path))


@pytest.fixture
async def database(database_settings: DatabaseSettings, tmp_path: Path) -> AsyncIterator[Database]:
    """A started database with the schema in place, on each kind there is."""
    made = Database(database_settings, tmp_path)
    yield made
    await made.aclose()
