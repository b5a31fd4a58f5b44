"""`understudy db` on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.database.commands import database_commands
from gateway.database.migrate import newest_revision
from tests.support.gateway import free_port
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.queue_worker import queue_on


def run(*arguments: str, **environment: str) -> Result:
    group = database_commands(lambda settings, database: queue_on(database, 30))
    variables = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DATA_DIR": None, **environment}
    return CliRunner(env=variables).invoke(group, arguments, catch_exceptions=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of an empty database, as variables."""
    if request.param == "sqlite":
        return {"UNDERSTUDY_DATA_DIR": str(tmp_path / "data")}
    server: PostgresServer = request.getfixturevalue("postgres")
    return {"UNDERSTUDY_DATABASE__URL": server.create_database()}


def test_upgrade_brings_the_schema_up_to_date(environment: dict[str, str]):
    """First there is none, then the newest, and doing it again changes nothing."""
    newest = newest_revision()
    assert run("current", **environment).output == f"none (this version works with {newest})\n"
    assert run("upgrade", **environment).output == f"The schema is at revision {newest} now.\n"
    assert run("upgrade", **environment).output == f"The schema is current: {newest}.\n"
    assert run("current", **environment).output == f"{newest} (this version works with {newest})\n"


def test_upgrade_makes_the_queues_tables(postgres: PostgresServer):
    """They are there before the first replica starts."""
    url = postgres.create_database()
    assert run("upgrade", UNDERSTUDY_DATABASE__URL=url).exit_code == 0
    assert postgres.run("SELECT count(*) FROM procrastinate_jobs", url.rpartition("/")[2]) == [(0,)]


def test_the_data_dir_can_be_given_as_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As for `understudy serve`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_DATA_DIR", "elsewhere")  # and is put back afterwards
    assert run("upgrade", "--data-dir", str(tmp_path / "data")).exit_code == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data" / "understudy.db").exists()


def test_a_database_that_is_not_there_is_said_without_its_url():
    """One line, an exit status, and no password."""
    url = f"postgresql+asyncpg://understudy:{PASSWORD}@127.0.0.1:{free_port()}/nothing"
    result = run("upgrade", UNDERSTUDY_DATABASE__URL=url)
    assert result.exit_code == 1
    assert result.output == "Error: The database can't be reached at the moment.\n"
