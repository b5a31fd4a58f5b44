"""The published contract is the one that the code has, and what it says of OpenAI's API is what
OpenAI's own SDK calls."""

from __future__ import annotations

import json
import re
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.contract.coverage import _why
from gateway.contract.properties import OpenAiProperties, compared
from tests.support.openai_operations import FILE, openai_operations
from tests.support.openai_properties import FILE as PROPERTIES
from tests.support.openai_properties import openai_properties
from tests.support.published import FOLDER, published


def documented() -> set[tuple[str, str]]:
    paths = published()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


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


def test_the_properties_are_those_of_the_sdk_s_types():
    """As they are listed where the installed SDK is the one of the list; another one's types give
    about as many, for the same operations."""
    listed, found = json.loads(PROPERTIES.read_text()), openai_properties()
    if listed["sdk"] == openai.__version__:
        assert listed == found
        return
    missing = listed["operations"].keys() - found["operations"].keys()
    assert len(missing) < 10
    assert len(found["operations"]["POST /responses"]["request"]) > 15


def test_every_operation_of_openai_s_is_compared():
    """All that is served of it is in the table of properties, whatever its method."""
    listed = {tuple(operation) for operation in json.loads(FILE.read_text())}
    ours = {(method, anonymous(path.removeprefix("/v1"))) for method, path in documented()}
    served = {f"{method} {path}" for method, path in listed if (method, anonymous(path)) in ours}
    assert json.loads(PROPERTIES.read_text())["operations"].keys() == served
    page = (FOLDER / "coverage.md").read_text()
    assert all(f"| `{name}` |" in page for name in served)


def test_the_page_of_the_docs_is_the_file():
    """There is no second copy that could be stale."""
    assert (FOLDER.parent / "docs" / "coverage.md").resolve() == (FOLDER / "coverage.md").resolve()


def test_a_property_without_a_reason_can_not_be_left_out():
    """What is missing is explained, or the page is not written."""
    with pytest.raises(KeyError):
        _why("data[].something_new")
    assert _why("reasoning.mode")
    assert _why("data[].moderation.results")


def test_properties_are_found_where_they_are():
    """Through references, unions and lists; and kinds that a client can't expect are told."""
    document = {
        "components": {
            "schemas": {
                "A": {"type": "object", "properties": {"b": {"$ref": "#/components/schemas/B"}}},
                "B": {
                    "type": "object",
                    "properties": {
                        "c": {"anyOf": [{"type": "null"}, {"type": "string"}]},
                        "free": {"type": "object"},
                    },
                },
            }
        },
        "paths": {
            "/v1/a/{x}": {
                "post": {
                    "parameters": [{"name": "q", "in": "query"}],
                    "requestBody": {
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/A"}}
                        }
                    },
                    "responses": {
                        "200": {
                            "content": {
                                "application/json": {
                                    "schema": {
                                        "type": "object",
                                        "properties": {
                                            "data": {
                                                "type": "array",
                                                "items": {"$ref": "#/components/schemas/A"},
                                            }
                                        },
                                    }
                                }
                            }
                        }
                    },
                }
            }
        },
    }
    theirs = OpenAiProperties(
        "1.0",
        {
            "POST /a/{y}": {
                "request": {"q": "string", "b.c": "string", "b.free.x": "any", "d": "string"},
                "answer": {"data[].b.c": "integer", "data[].b.d": "string", "data": "array"},
            }
        },
    )
    [found] = compared(document, theirs)
    assert found.request == {
        "q": "supported",
        "b.c": "supported",
        "b.free.x": "supported",
        "d": "ignored",
    }
    assert found.answer == {
        "data[].b.c": "supported",
        "data[].b.d": "missing",
        "data": "supported",
    }
    assert found.other_kinds == {"data[].b.c": "null|string"}
    assert found.lacking() == ["d", "data[].b.d"]


def test_every_operation_is_there_for_clients_of_llamastack_too():
    """What OpenAI's SDK calls below /v1 is also below /v1/openai/v1."""
    paths = documented()
    shared = {tuple(operation) for operation in json.loads(FILE.read_text())}
    for method, path in sorted(paths):
        if (method, path.removeprefix("/v1")) in shared and not path.startswith("/v1/openai"):
            assert (method, path.replace("/v1/", "/v1/openai/v1/", 1)) in paths, path


def test_every_refusal_is_documented():
    """A relay lists the statuses that it can answer with, all in the one shape."""
    document = published()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "404", "413", "415", "429", "500", "502", "503", "504"} <= set(
        chat["responses"]
    )
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert error["required"] == ["message", "type", "param", "code"]
