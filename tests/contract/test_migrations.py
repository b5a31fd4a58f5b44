"""The schema comes about by steps, whole, once, and is what the tables say; on both databases."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.database import migrate
from gateway.database.engine import Database
from gateway.database.migrate import (
    DatabaseTooNew,
    current_revision,
    newest_revision,
    upgrade,
)
from gateway.errors import UpstreamUnavailable
from tests.support.databases import open_database, sqlite_url
from tests.support.gateway import free_port
from tests.support.migrations import differences
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without anything in it."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    made = open_database(empty_url)
    yield made
    await made.aclose()


async def test_the_steps_make_what_the_tables_say(empty: Database):
    """Nothing is left to do after the last step; else a step is missing.

    `python -m tests.support.migrations` writes it.
    """
    async with empty.engine.connect() as connection:
        assert await connection.run_sync(differences)
    await upgrade(empty)
    async with empty.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_second_upgrade_has_nothing_to_do(empty: Database):
    """The first one tells the revision, the next one that there was nothing."""
    assert await current_revision(empty) is None
    assert await upgrade(empty) == newest_revision()
    assert await current_revision(empty) == newest_revision()
    assert await upgrade(empty) is None


def upgrade_in_a_process(url: str, answers: multiprocessing.Queue) -> None:
    async def run() -> str | None:
        database = open_database(url)
        try:
            return await upgrade(database)
        finally:
            await database.aclose()

    try:
        answers.put(asyncio.run(run()))
    except Exception as error:  # noqa: BLE001  (the parent shows it)
        answers.put(repr(error))


async def test_replicas_that_start_at_once_upgrade_once(empty_url: str):
    """One process does it, the others wait for it and find it done."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [
        spawn.Process(target=upgrade_in_a_process, args=(empty_url, answers)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    got = [await asyncio.to_thread(answers.get, timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(got, key=str) == [newest_revision(), None, None]


async def test_many_in_one_process_upgrade_once(empty_url: str):
    """The lock also holds between connections of one process."""
    databases = [open_database(empty_url) for _ in range(8)]
    got = await asyncio.gather(*(upgrade(database) for database in databases))
    assert [one for one in got if one] == [newest_revision()]
    for database in databases:
        await database.aclose()


async def test_a_newer_database_is_refused_and_left_alone(empty: Database):
    """An older version doesn't touch what it doesn't know, and says which version it met."""
    await upgrade(empty)
    async with empty.begin() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="revision 9999"):
        await upgrade(empty)
    assert await current_revision(empty) == "9999"


async def test_a_step_that_fails_leaves_nothing(empty: Database, monkeypatch: pytest.MonkeyPatch):
    """A step is taken whole or not at all, also what it has made of tables."""
    take_steps = migrate._take_steps

    def take_and_fail(connection):
        take_steps(connection)
        raise RuntimeError("broken off")

    monkeypatch.setattr(migrate, "_take_steps", take_and_fail)
    with pytest.raises(RuntimeError):
        await upgrade(empty)
    assert await current_revision(empty) is None
    monkeypatch.undo()
    assert await upgrade(empty) == newest_revision()


async def test_a_database_that_is_not_there_is_an_outage():
    """The gateway tries again later, so it has to be the same error as for a request."""
    database = open_database(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/nothing")
    with pytest.raises(UpstreamUnavailable):
        await upgrade(database)
    await database.aclose()
