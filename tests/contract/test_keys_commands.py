"""`understudy keys` on both databases."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.identity.api_keys import digest_of
from gateway.identity.scopes import ORDINARY
from tests.support.gateway import free_port
from tests.support.postgres import PASSWORD, PostgresServer

SECRET = re.compile(r"sk-us-[A-Za-z0-9_-]{43}")


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of an empty database, as variables."""
    if request.param == "sqlite":
        return {"UNDERSTUDY_DATA_DIR": str(tmp_path / "data")}
    server: PostgresServer = request.getfixturevalue("postgres")
    return {"UNDERSTUDY_DATABASE__URL": server.create_database()}


@pytest.fixture
def run(environment: dict[str, str]):
    def runs(*arguments: str) -> Result:
        variables = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DATA_DIR": None, **environment}
        return CliRunner(env=variables).invoke(main, ["keys", *arguments], catch_exceptions=False)

    return runs


@pytest.fixture
def made(run):
    def makes(*arguments: str) -> dict[str, Any]:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return makes


def test_the_secret_is_shown_once(run, made):
    """When the key is made, on a line of its own, and never again."""
    result = run("create", "--project", "team-a")
    [secret] = SECRET.findall(result.stdout)
    assert result.stdout.splitlines()[0] == secret
    listed = run("list")
    assert secret not in listed.output
    assert secret[:12] in listed.output
    [key] = made("list")
    assert "secret" not in key
    assert secret not in json.dumps(key)


def test_a_key_has_what_was_asked_for(made):
    """Project, name, scopes, models and an end; the rest by default."""
    key = made(
        *("create", "--project", "team-a", "--name", "nightly", "--expires", "30d"),
        *("--scope", "inference", "--scope", "files", "--model", "granite"),
    )
    assert SECRET.fullmatch(key["secret"])
    assert key["prefix"] == key["secret"][:12]
    assert re.fullmatch(r"key_[0-9a-f]{32}", key["id"])
    assert (key["project"], key["name"], key["state"]) == ("team-a", "nightly", "active")
    assert key["scopes"] == ["files", "inference"]
    assert key["models"] == ["granite"]
    assert abs(key["expires_at"] - time.time() - 30 * 86400) < 60
    usual = made("create")
    assert (usual["project"], usual["models"], usual["expires_at"]) == ("default", None, None)
    assert set(usual["scopes"]) == ORDINARY


def test_only_the_digest_is_stored(made, environment, tmp_path):
    """Nothing in the database leads to a secret."""
    key = made("create")
    if "UNDERSTUDY_DATA_DIR" in environment:
        kept = b"".join(
            file.read_bytes() for file in (tmp_path / "data").iterdir() if file.is_file()
        )
        assert key["secret"].encode() not in kept
        assert digest_of(key["secret"]).encode() in kept


def test_keys_of_one_project_can_be_listed(made):
    """And those that have ended only when asked for."""
    first, second = made("create", "--project", "a"), made("create", "--project", "b")
    assert [key["id"] for key in made("list")] == [first["id"], second["id"]]
    assert [key["id"] for key in made("list", "--project", "b")] == [second["id"]]
    made("revoke", first["id"])
    assert [key["id"] for key in made("list")] == [second["id"]]
    ended = made("list", "--all", "--project", "a")
    assert [key["state"] for key in ended] == ["revoked"]


def test_a_key_is_revoked_by_its_id_or_prefix(run, made):
    """Once and for all; what is unknown is said."""
    key, other = made("create"), made("create")
    assert run("revoke", key["id"]).output == f"{key['id']} is revoked.\n"
    first = made("revoke", key["id"])
    assert first["revoked_at"] is not None
    assert made("revoke", other["prefix"])["id"] == other["id"]
    unknown = run("revoke", "key_unknown")
    assert unknown.exit_code == 1
    assert unknown.output == "Error: No such key: key_unknown\n"


def test_rotating_keeps_the_key_and_changes_its_secret(run, made):
    """A key that has ended is not brought back."""
    key = made("create", "--scope", "files")
    rotated = made("rotate", key["id"], "--grace", "24h")
    assert rotated["id"] == key["id"]
    assert rotated["scopes"] == key["scopes"]
    assert rotated["secret"] != key["secret"]
    assert SECRET.search(run("rotate", rotated["prefix"]).stdout)
    made("revoke", key["id"])
    result = run("rotate", key["id"])
    assert result.exit_code == 1
    assert "is revoked" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--scope", "everything"], "is not one of"),
        (["create", "--expires", "soon"], "such as 90s, 15m, 12h, 30d or 4w"),
        (["create", "--expires", "-1d"], "such as"),
        (["create", "--project", "a b"], "Invalid project"),
        (["create", "--name", "x" * 201], "Invalid name"),
        (["rotate", "key_x", "--grace", "1y"], "such as"),
    ],
)
def test_what_cant_be_is_said(run, arguments, said):
    """With an exit status, and nothing is made."""
    result = run(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert json.loads(run("list", "--json").stdout) == []


def test_a_database_that_is_not_there_is_said_without_its_url():
    """One line, and no password."""
    url = f"postgresql+asyncpg://understudy:{PASSWORD}@127.0.0.1:{free_port()}/nothing"
    variables = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DATABASE__URL": url}
    result = CliRunner(env=variables).invoke(main, ["keys", "list"], catch_exceptions=False)
    assert result.exit_code == 1
    assert result.output == "Error: The database can't be reached at the moment.\n"


def test_a_database_of_another_version_is_left_as_it_is(run, made, environment):
    """`understudy db upgrade` is what changes it."""
    if "UNDERSTUDY_DATA_DIR" not in environment:
        return
    import sqlite3

    made("create")
    file = Path(environment["UNDERSTUDY_DATA_DIR"]) / "understudy.db"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    result = run("list")
    assert result.exit_code == 1
    assert "understudy db upgrade" in result.output


def test_every_change_is_in_the_audit_log(run, environment: dict[str, str]):
    """Who ran the command, on which key; no secret."""
    key = json.loads(run("create", "--project", "red", "--json").output)
    run("rotate", key["id"])
    run("revoke", key["id"])
    run("revoke", key["id"])  # again: it changes nothing
    variables = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DATA_DIR": None, **environment}
    exported = CliRunner(env=variables).invoke(main, ["audit", "export"], catch_exceptions=False)
    entries = [json.loads(line) for line in exported.output.splitlines()]
    assert [one["action"] for one in entries] == ["keys.create", "keys.rotate", "keys.revoke"]
    assert {(one["project_id"], one["object_id"]) for one in entries} == {("red", key["id"])}
    assert all(one["subject"].startswith("cli:") for one in entries)
    assert SECRET.search(exported.output) is None
