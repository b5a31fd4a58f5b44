"""The published contract, as it is checked in."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "openapi"


@cache
def published() -> dict[str, Any]:
    """``openapi.yaml``, read once, and by libyaml where that is there: it is long."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (FOLDER / "openapi.yaml").read_text()
    document: dict[str, Any] = yaml.load(text, loader)
    return document
