"""What the application may rely on of its database, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from gateway.database.engine import Database
from gateway.database.tables import JobRow, UploadRow
from gateway.errors import UpstreamUnavailable
from gateway.settings import DatabaseSettings
from tests.support.postgres import HOST, PASSWORD, PostgresServer

pytestmark = pytest.mark.anyio

SECRETS = (PASSWORD, HOST, "understudy:", "5432")


def upload(name: str) -> UploadRow:
    return UploadRow(
        id=name,
        project="default",
        sequence=1,
        filename="f",
        purpose="assistants",
        bytes=1,
        media_type="text/plain",
        expires_at=0,
    )


async def uploads(database: Database) -> int:
    async with database.read() as session:
        return (await session.execute(text("SELECT count(*) FROM uploads"))).scalar_one()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may stop and freeze."""
    with PostgresServer() as server:
        yield server


async def test_a_block_commits_when_it_ends(database: Database):
    """What was added in a block is there afterwards."""
    async with database.begin() as session:
        session.add(upload("upload_1"))
    assert await uploads(database) == 1


async def test_a_block_that_raises_leaves_nothing(database: Database):
    """An exception rolls the whole block back and passes on as it is."""
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as session:
            session.add(upload("upload_1"))
            await session.flush()
            _ = 1 / 0
    assert await uploads(database) == 0


async def test_what_was_read_before_a_write_still_holds(database: Database):
    """Two blocks that count and then write, at once, leave the sum of both."""

    async def add(name: str) -> None:
        async with database.begin() as session:
            if not database.is_sqlite:
                await session.execute(text("LOCK TABLE uploads IN EXCLUSIVE MODE"))
            count = (await session.execute(text("SELECT count(*) FROM uploads"))).scalar_one()
            await asyncio.sleep(0.02)
            session.add(upload(f"{name}_{count}"))

    await asyncio.gather(*(add("upload") for _ in range(5)))
    assert await uploads(database) == 5


async def test_a_broken_constraint_stays_what_it_is(database: Database):
    """An integrity error is the caller's matter, not an outage."""
    async with database.begin() as session:
        session.add(upload("upload_1"))
    with pytest.raises(IntegrityError):
        async with database.begin() as session:
            session.add(upload("upload_1"))


async def test_errors_show_no_values(database: Database):
    """What is in rows is the users' own and stays out of messages and logs."""
    async with database.begin() as session:
        session.add(upload("upload_1"))
    with pytest.raises(IntegrityError) as caught:
        async with database.begin() as session:
            row = upload("upload_1")
            row.filename = "a private name"
            session.add(row)
    assert "a private name" not in str(caught.value)


async def test_many_connections_may_open_a_new_file_at_once(tmp_path: Path):
    """SQLite refuses some of those that change its journal at the same time; they try again.

    It takes a hundred new files to see it with near certainty.
    """
    for number in range(100):
        folder = tmp_path / str(number)
        databases = [Database(DatabaseSettings(), folder) for _ in range(8)]
        assert all(await asyncio.gather(*(database.answers() for database in databases)))
        for database in databases:
            await database.aclose()


async def test_a_mistake_in_a_statement_is_no_outage(postgres_url: str, tmp_path: Path):
    """A wrong statement is a fault of the gateway's own and isn't hidden as an outage."""
    database = Database(DatabaseSettings(url=postgres_url), tmp_path)
    with pytest.raises(ProgrammingError):
        async with database.read() as session:
            await session.execute(text("SELECT nothing FROM nowhere"))
    await database.aclose()


@pytest.mark.alone
async def test_a_stopped_server_is_said_quickly_and_comes_back(
    own_postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A caller gets a 503 that names no address, at once; later it works as if nothing was."""
    database = Database(DatabaseSettings(url=own_postgres.url()), tmp_path)
    async with database.read() as session:
        await session.execute(text("SELECT 1"))

    own_postgres.kill()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable) as caught:
            async with database.begin() as session:
                await session.execute(text("SELECT 1"))
        assert time.monotonic() - started < 4
        assert caught.value.status == 503
        assert not any(secret in caught.value.message for secret in SECRETS)
    assert PASSWORD not in caplog.text
    assert not await database.answers()

    own_postgres.start()
    async with database.begin() as session:
        assert (await session.execute(text("SELECT 1"))).scalar() == 1
    await database.aclose()


async def test_a_server_killed_in_a_transaction_is_an_outage(
    own_postgres: PostgresServer, tmp_path: Path
):
    """A connection that breaks half-way is a 503 as well."""
    database = Database(DatabaseSettings(url=own_postgres.url()), tmp_path)
    with pytest.raises(UpstreamUnavailable):
        async with database.begin() as session:
            await session.execute(text("SELECT 1"))
            own_postgres.kill()
            await session.execute(text("SELECT 1"))
    await database.aclose()


@pytest.mark.alone
async def test_a_server_that_hangs_in_a_transaction_is_an_outage(
    own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A statement that is never answered is given up after the time limit."""
    monkeypatch.setattr("gateway.database.engine._STATEMENT_SECONDS", 0.5)
    database = Database(DatabaseSettings(url=own_postgres.url()), tmp_path)
    try:
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            async with database.begin() as session:
                own_postgres.freeze()
                await session.execute(text("SELECT 1"))
        assert time.monotonic() - started < 5
    finally:
        own_postgres.thaw()
    assert await database.answers()
    await database.aclose()


@pytest.mark.alone
async def test_a_hanging_server_is_an_outage(
    own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A server that takes connections and answers nothing is given up after the time limit."""
    monkeypatch.setattr("gateway.database.engine._CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("gateway.database.engine._STATEMENT_SECONDS", 0.5)
    monkeypatch.setattr("gateway.database.engine._ANSWER_SECONDS", 0.5)
    database = Database(DatabaseSettings(url=own_postgres.url()), tmp_path)
    async with database.read() as session:
        await session.execute(text("SELECT 1"))
    own_postgres.freeze()
    try:
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            async with database.read() as session:
                await session.execute(text("SELECT 1"))
        assert not await database.answers()
        assert time.monotonic() - started < 5
    finally:
        own_postgres.thaw()
    assert await database.answers()
    await database.aclose()


async def test_a_wrong_password_is_an_outage_that_does_not_show_it(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Whoever calls can do nothing about it; the log says what is wrong, without the password."""
    url = postgres.url().replace(PASSWORD, "wrong-and-secret")
    database = Database(DatabaseSettings(url=url), tmp_path)
    with pytest.raises(UpstreamUnavailable) as caught:
        async with database.read():
            pass
    assert "wrong-and-secret" not in caught.value.message + caplog.text
    assert "password authentication failed" in caplog.text
    await database.aclose()


@pytest.mark.alone
async def test_a_pool_that_is_used_up_is_an_outage(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who gets no connection in time is told to come again."""
    monkeypatch.setattr("gateway.database.engine._CONNECT_SECONDS", 1.0)
    database = Database(DatabaseSettings(url=postgres_url, pool_size=1), tmp_path)
    async with database.read(), database.read():
        with pytest.raises(UpstreamUnavailable):
            async with database.read():
                pass
    async with database.read():
        pass
    await database.aclose()


async def test_a_callers_own_os_error_is_not_taken_for_an_outage(database: Database):
    """Files that can't be read inside a block have nothing to do with the database."""
    with pytest.raises(FileNotFoundError):
        async with database.begin():
            raise FileNotFoundError("elsewhere")


@pytest.mark.alone
async def test_a_cancelled_write_leaves_nothing_locked(database):
    """Wherever a caller's leaving hits it: all of it stays or nothing, and the next can write."""
    chance = random.Random(7)
    rows = [
        {"id": f"job-{number}", "kind": "k", "payload": {"text": "x" * 2000}, "due_at": 0.0}
        for number in range(100)
    ]

    async def write() -> None:
        async with database.begin() as session:
            await session.execute(delete(JobRow))
            await session.execute(insert(JobRow), rows)

    for _ in range(60):
        task = asyncio.create_task(write())
        await asyncio.sleep(chance.uniform(0, 0.02))
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5), database.begin() as session:
            kept = (await session.execute(select(func.count()).select_from(JobRow))).scalar_one()
            assert kept in ((0, len(rows)) if task.cancelled() else (len(rows),))
            await session.execute(delete(JobRow))
