"""The files of ``openapi/``."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from gateway.contract.coverage import coverage_page
from gateway.contract.document import openapi_document
from gateway.contract.properties import OpenAiProperties

__all__ = ["contract_files"]

OPENAI_OPERATIONS = "openai-operations.json"
"""OpenAI's own operations, written by ``tests/support/openai_operations.py`` from its SDK."""

OPENAI_PROPERTIES = "openai-properties.json"
"""The properties of those, written by ``tests/support/openai_properties.py`` from its types."""


def contract_files(output: Path) -> dict[str, str]:
    """The files of ``openapi/`` as they should be, by name."""
    from gateway.app import create_app  # here: it is the composition root of everything
    from gateway.settings import Settings

    document = openapi_document(create_app(Settings()).handlers)
    files = {
        "openapi.yaml": yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=100)
    }
    operations, properties = output / OPENAI_OPERATIONS, output / OPENAI_PROPERTIES
    if operations.exists() and properties.exists():
        listed = msgspec.json.decode(operations.read_bytes(), type=list[tuple[str, str]])
        kinds = msgspec.json.decode(properties.read_bytes(), type=OpenAiProperties)
        files["coverage.md"] = coverage_page(document, listed, kinds)
    return files
