"""The published contract is the one that the code has, and what it says of OpenAI's API is what
OpenAI's own SDK calls."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from click.testing import CliRunner

from gateway.cli import main
from tests.support.openai_operations import FILE, openai_operations

FOLDER = FILE.parent


def documented() -> set[tuple[str, str]]:
    document = yaml.safe_load((FOLDER / "openapi.yaml").read_text())
    return {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }


def test_the_files_are_current():
    """`understudy openapi --check` passes on what is checked in."""
    result = CliRunner().invoke(main, ["openapi", "--check", "--output", str(FOLDER)])
    assert result.exit_code == 0, result.output


def test_a_stale_file_is_found(tmp_path: Path):
    """And fails, by name, on what is not."""
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "openapi.yaml").write_text("openapi: 3.1.0\n")
    result = CliRunner().invoke(main, ["openapi", "--check", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "openapi.yaml" in result.output
    assert "coverage.md" not in result.output
    assert CliRunner().invoke(main, ["openapi", "--output", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "openapi.yaml").read_text() == (FOLDER / "openapi.yaml").read_text()


def test_what_is_served_of_openai_s_api_is_what_its_sdk_calls():
    """Every operation of ours that the list has is one of the installed SDK's."""
    listed = {tuple(operation) for operation in json.loads(FILE.read_text())}
    ours = {(method, path.removeprefix("/v1")) for method, path in documented()}
    served = {(method, path) for method, path in listed if (method, path) in ours or "{" in path}
    assert {
        ("POST", "/chat/completions"),
        ("POST", "/completions"),
        ("POST", "/embeddings"),
        ("GET", "/models"),
        ("GET", "/models/{model}"),
    } <= served
    assert {pair for pair in served if pair in ours} <= set(openai_operations())


def test_every_operation_is_there_for_clients_of_llamastack_too():
    """What OpenAI's SDK calls below /v1 is also below /v1/openai/v1."""
    paths = documented()
    shared = {tuple(operation) for operation in json.loads(FILE.read_text())}
    for method, path in sorted(paths):
        if (method, path.removeprefix("/v1")) in shared and not path.startswith("/v1/openai"):
            assert (method, path.replace("/v1/", "/v1/openai/v1/", 1)) in paths, path


def test_every_refusal_is_documented():
    """A relay lists the statuses that it can answer with, all in the one shape."""
    document = yaml.safe_load((FOLDER / "openapi.yaml").read_text())
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "404", "413", "415", "429", "500", "502", "503", "504"} <= set(
        chat["responses"]
    )
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert error["required"] == ["message", "type", "param", "code"]
