"""The one on whose behalf a request is done."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["DEFAULT_PROJECT", "Principal"]

DEFAULT_PROJECT = "default"
"""What everything belongs to where no identity is asked for."""


class Principal(Struct, frozen=True, kw_only=True):
    """A caller. It sees what belongs to its project, and nothing of any other."""

    project: str = DEFAULT_PROJECT
