"""values.yaml explains itself, and its schema knows it whole."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from gateway import __version__
from tests.support.chart import CHART, VALUES, _loaded, default_values

FREE = {"config"}
"""Values whose inside is the gateway's, or Kubernetes'."""

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def lines_with_keys(text: str) -> list[tuple[int, str]]:
    """Number and key of each line of YAML that begins with one."""
    return [
        (number, found[1])
        for number, line in enumerate(text.splitlines())
        if (found := re.match(r"\s*([A-Za-z_]\w*):", line))
    ]


def uncommented(text: str) -> list[str]:
    """Keys with neither a comment above nor one at their end."""
    lines = text.splitlines()
    return [
        f"{number + 1}: {key}"
        for number, key in lines_with_keys(text)
        if not lines[number - 1].lstrip().startswith("#") and " #" not in lines[number]
    ]


def test_every_value_has_a_comment():
    """Above each key of values.yaml stands what it is for."""
    assert uncommented((CHART / "values.yaml").read_text(encoding="utf-8")) == []


def test_every_value_of_the_example_has_a_comment():
    """The values for OpenShift AI say why they are what they are."""
    assert uncommented(VALUES["rhoai"].read_text(encoding="utf-8")) == []


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    definition: dict[str, Any] = SCHEMA["$defs"][reference.rpartition("/")[2]]
    return definition


def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
    """Asserts that a closed part of the schema has the same keys as values.yaml."""
    if schema.get("additionalProperties") is not False:
        return
    known = set(schema["properties"]) - {"global", "rollingUpdate", "claims"}
    optional = {"successThreshold", "initialDelaySeconds", "backendRequest"}
    assert set(values) <= known, path
    if values:
        assert known - optional <= set(values), path
    for key, value in values.items():
        if isinstance(value, dict) and key not in FREE:
            compare(value, resolved(schema["properties"][key]), f"{path}.{key}")


def test_the_schema_has_the_values_and_no_others():
    """What values.yaml has is in the schema, and what the schema allows is in values.yaml."""
    compare(default_values(), SCHEMA, "")


def test_the_schema_is_closed():
    """A misspelt key is refused at the top and in every section of the chart's own."""
    open_sections = {
        key
        for key, schema in SCHEMA["properties"].items()
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False
    }
    assert open_sections == {
        *("affinity", "config", "global", "podSecurityContext", "securityContext"),
        *("secretEnv", "secretFiles"),
    }


def test_the_schema_is_a_schema():
    """It is valid itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_chart_is_of_this_version():
    """The image's default tag is the gateway's version."""
    assert _loaded().metadata["appVersion"] == __version__


@pytest.mark.parametrize("word", ["password", "secret_key", "api_key", "token"])
def test_no_default_is_a_secret(word: str):
    """There is no default password."""
    assert not re.search(
        rf"^\s*{word}: *[\"']?\w", (CHART / "values.yaml").read_text(), re.MULTILINE
    )
