"""What the sections of the configuration have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

ModelKind = Literal["chat", "embedding", "rerank", "moderation"]
Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveInt = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
PROJECT_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:/-]{0,118}[A-Za-z0-9])?$"
ProjectName = Annotated[str, Meta(pattern=PROJECT_PATTERN)]
"""A project: up to 120 letters, digits and ``. _ : / -``."""


class SettingsError(ValueError):
    """A setting is wrong. The message names it as ``section.key``."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; a misspelt key is an error, not a silent default."""


def is_header_value(text: str) -> bool:
    """Whether an HTTP header can carry this text."""
    return text.isascii() and text.isprintable()
