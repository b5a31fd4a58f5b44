"""Settings of identity: what can't work, or would let in everybody, is said at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

import gateway.serving
from gateway.cli import main
from gateway.configuration import load_settings
from gateway.identity.projects import is_project
from gateway.identity.scopes import SCOPES
from gateway.settings import Scope, SettingsError


@pytest.fixture
def load(tmp_path: Path):
    def loads(**sections: Any) -> Any:
        file = tmp_path / "understudy.yaml"
        file.write_text(yaml.safe_dump(sections))
        return load_settings(file, {})

    return loads


def test_settings_and_the_table_of_scopes_have_the_same_scopes():
    """One is a type, so that a misspelt scope is an error; the other says what they open."""
    assert set(get_args(Scope)) == set(SCOPES)


OIDC = {"issuer": "https://sso/realms/a", "audience": ["understudy"], "project_claim": "team"}
PROXY = {"trusted": ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"mode": "password"}, "identity.mode"),
        ({"mode": "oidc"}, "identity.oidc.issuer: needed"),
        ({"mode": "oidc", "oidc": {**OIDC, "audience": []}}, "identity.oidc.audience: needed"),
        ({"mode": "oidc", "oidc": {**OIDC, "issuer": "http://sso"}}, "expected https"),
        ({"mode": "oidc", "oidc": {**OIDC, "issuer": "sso"}}, "identity.oidc.issuer: expected"),
        ({"mode": "oidc", "oidc": {**OIDC, "algorithms": ["HS256"]}}, "identity.oidc.algorithms"),
        ({"mode": "oidc", "oidc": {**OIDC, "algorithms": ["none"]}}, "identity.oidc.algorithms"),
        ({"mode": "oidc", "oidc": {**OIDC, "algorithms": []}}, "give at least one"),
        ({"mode": "oidc", "oidc": {**OIDC, "leeway_seconds": 9000}}, "leeway_seconds"),
        ({"mode": "oidc", "oidc": {**OIDC, "project_claim": None}}, "project_claim or default"),
        ({"mode": "oidc", "oidc": {**OIDC, "ca_file": "/nowhere"}}, "ca_file: no such file"),
        ({"mode": "oidc", "oidc": {**OIDC, "default_project": "a b"}}, "default_project"),
        ({"mode": "oidc", "oidc": {**OIDC, "projects": {"g": "a b"}}}, "identity.oidc.projects"),
        ({"mode": "oidc", "oidc": {**OIDC, "roles": {"r": ["x"]}}}, "identity.oidc.roles"),
        ({"mode": "oidc", "oidc": {**OIDC, "default_scopes": ["x"]}}, "default_scopes"),
        ({"mode": "kubernetes", "kubernetes": {"token_file": "/no"}}, "token_file: no such file"),
        ({"mode": "upstream_header"}, "identity.upstream_header.trusted: needed"),
        ({"mode": "upstream_header", "upstream_header": {"trusted": ["x"]}}, "trusted"),
        ({"mode": "upstream_header", "upstream_header": {"trusted": ["10.0.0.1/8"]}}, "host bits"),
        ({"mode": "upstream_header", "upstream_header": {"trusted": ["0.0.0.0/0"]}}, "everybody"),
        ({"mode": "upstream_header", "upstream_header": {"trusted": ["::/0"]}}, "everybody"),
        (
            {"mode": "upstream_header", "upstream_header": {**PROXY, "user_header": "a b"}},
            "no name of a header",
        ),
        (
            {
                "mode": "upstream_header",
                "upstream_header": {**PROXY, "user_header": "X-Remote-Project"},
            },
            "headers of their own",
        ),
        ({"mode": "api_keys", "api_keys": {"cache_seconds": 0}}, "cache_seconds"),
    ],
)
def test_what_cant_work_is_named_by_its_key(load, identity, said):
    """And says what to do."""
    with pytest.raises(SettingsError) as raised:
        load(identity=identity)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "identity",
    [
        {"mode": "none", "oidc": {"issuer": "nonsense"}},
        {"mode": "api_keys"},
        {"mode": "oidc", "oidc": OIDC},
        {"mode": "oidc", "oidc": {**OIDC, "issuer": "http://127.0.0.1:8080"}},
        {"mode": "upstream_header", "upstream_header": PROXY},
    ],
)
def test_what_works_is_taken(load, identity):
    """Only the chosen mode's fields are looked at."""
    assert load(identity=identity).identity.mode == identity["mode"]


@pytest.mark.parametrize("name", ["authorization", "Authorization", "x-api-key", "X-Remote-User"])
def test_what_proves_an_identity_is_not_forwarded(load, name):
    """Neither by a discovered server nor by a model's; without an identity it is the caller's."""
    backend = {"url": "http://vllm:8000", "forward_headers": [name]}
    identity = {"mode": "upstream_header", "upstream_header": PROXY}
    for sections in (
        {"discover": [backend]},
        {"models": [{"id": "a", "backends": [backend]}]},
    ):
        with pytest.raises(SettingsError, match="forward_headers"):
            load(identity=identity, **sections)
        assert load(**sections)


@pytest.fixture
def served(monkeypatch) -> list[Any]:
    """What `understudy serve` would serve."""
    found: list[Any] = []
    monkeypatch.setattr(gateway.serving, "serve", found.append)
    return found


def serve(*arguments: str, **environment: str) -> Any:
    usual = {"UNDERSTUDY_CONFIG": None, "UNDERSTUDY_DISCOVER": "['http://127.0.0.1:9']"}
    cleared = ("SERVER__HOST", "SERVER__PORT", "IDENTITY__ALLOW_ANONYMOUS")
    usual |= {f"UNDERSTUDY_{name}": None for name in cleared}
    return CliRunner(env={**usual, **environment}).invoke(
        main, ["serve", *arguments], catch_exceptions=False
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "gateway.example.com", ""])
def test_other_machines_are_not_served_without_an_identity(served, host):
    """By mistake. The refusal says what can be done."""
    result = serve("--host", host)
    assert result.exit_code == 1
    assert not served
    for word in ("identity.mode", "127.0.0.1", "allow_anonymous", "--allow-anonymous"):
        assert word in result.output


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_is_served_without_an_identity(served, host):
    """Nobody else can reach it."""
    assert serve("--host", host).exit_code == 0
    assert len(served) == 1


def test_other_machines_are_served_without_an_identity_where_that_is_wanted(served):
    """By the option or by the setting."""
    assert serve("--host", "0.0.0.0", "--allow-anonymous").exit_code == 0
    variable = {"UNDERSTUDY_IDENTITY__ALLOW_ANONYMOUS": "true"}
    assert serve("--host", "0.0.0.0", **variable).exit_code == 0
    assert serve("--host", "0.0.0.0", UNDERSTUDY_IDENTITY__MODE="api_keys").exit_code == 0
    assert len(served) == 3


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *(("a", True), ("team-a", True), ("org/team:1", True), ("x" * 120, True)),
        *(("x" * 121, False), ("", False), ("-a", False), ("a\n", False), ("a b", False)),
        ("ä", False),
    ],
)
def test_names_of_projects(name, known):
    """What fits into a column, a log line and a URL."""
    assert is_project(name) is known
