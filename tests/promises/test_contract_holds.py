"""The emitted OpenAPI document is the truth: whatever schemathesis makes of it, there is no fault
of the gateway's, no status that isn't documented, no answer in another shape, and nothing is taken
that the document forbids. `make fuzz` looks longer."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from gateway.app import create_app
from gateway.contract import openapi_document
from gateway.contract.overlay import overlay
from gateway.settings import Settings
from tests.support.fuzzing import CONFIG, fuzz, is_tested, with_served_models

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def document():
    return openapi_document(create_app(Settings()).handlers)


@pytest.mark.timeout(900)
async def test_what_schemathesis_makes_of_the_document_is_answered_as_it_says(tmp_path: Path):
    """Every check that schemathesis has, but those that its configuration gives a reason against.

    The coverage phase makes the same 6500 requests each time, of what lies inside and outside of
    every bound; a few more follow the links between operations.
    """
    status, said = await fuzz(
        "--phases=coverage,stateful", "--max-examples=3", "--seed=1", folder=tmp_path
    )
    assert status == 0, said


@pytest.mark.timeout(900)
async def test_no_operation_lets_anybody_in_without_a_key(tmp_path: Path):
    """Where an identity is asked for: not without a key, nor with one that is none; and the
    answers to those who have one are as documented."""
    status, said = await fuzz(
        "--phases=examples,fuzzing",
        "--checks=ignored_auth,not_a_server_error,status_code_conformance,"
        "response_headers_conformance,response_schema_conformance",
        "--max-examples=2",
        "--seed=1",
        folder=tmp_path,
        known=True,
    )
    assert status == 0, said


def test_nothing_is_left_out_of_the_run(document):
    """But what is there again under another prefix, with the same handler."""
    names = {
        operation["operationId"]: path
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    tested = {name.partition("_")[0] for name, path in names.items() if is_tested(path)}
    assert {name.partition("_")[0] for name in names} == tested


def test_every_exception_has_its_reason_beside_it():
    """In the configuration, each table of operations follows a comment."""
    lines = CONFIG.read_text().splitlines()
    tables = [number for number, line in enumerate(lines) if line == "[[operations]]"]
    assert tables
    assert all(lines[number - 1].startswith("# ") for number in tables)
    switched_off = tomllib.loads(CONFIG.read_text())["operations"]
    assert all(one["checks"].keys() == {"positive_data_acceptance"} for one in switched_off)


def test_schemas_of_one_name_are_told_apart(document):
    """A vector store expires after days, a file after seconds; both are called ExpiresAfter."""
    schemas = document["components"]["schemas"]

    def anchor(kind: str) -> object:
        [reference] = [
            one["$ref"].rpartition("/")[2]
            for one in schemas[kind]["properties"]["expires_after"]["anyOf"]
            if "$ref" in one
        ]
        return schemas[reference]["properties"]["anchor"]["enum"]

    assert anchor("CreateVectorStore") == ["last_active_at"]
    assert anchor("CreateUpload") == ["created_at"]


def test_demands_on_fields_that_are_gone_are_noticed():
    """What the overlay says of a field that no type has is an error, not a lie."""
    with pytest.raises(KeyError):
        overlay({})


def test_every_reference_leads_somewhere(document):
    """And every refusal has OpenAI's shape."""
    text = yaml.safe_dump(document)
    for kind in ("schemas", "headers"):
        for name in document["components"][kind]:
            text = text.replace(f"'#/components/{kind}/{name}'", "")
            text = text.replace(f'"#/components/{kind}/{name}"', "")
    assert "#/components/" not in text
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    [content] = answer["content"].values()
                    assert content["schema"]["$ref"].endswith("/Error")
                if status in ("429", "503"):
                    assert "retry-after" in answer["headers"]


def test_the_models_of_the_run_are_those_that_are_served(document):
    """Invented ones would only ever be a 404."""
    schemas = with_served_models(document)["components"]["schemas"]
    assert schemas["ChatCompletionRequest"]["properties"]["model"]["enum"] == ["fake-chat"]
    assert (
        document["components"]["schemas"]["ChatCompletionRequest"]
        != (schemas["ChatCompletionRequest"])
    )
