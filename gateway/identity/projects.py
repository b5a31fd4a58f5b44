"""Names of projects."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import InvalidRequest, PermissionDenied
from gateway.settings.section import PROJECT_PATTERN

__all__ = ["check_project", "is_project", "known_projects"]

_PROJECT = re.compile(PROJECT_PATTERN)


def is_project(name: str) -> bool:
    """Whether a project may be called this."""
    return _PROJECT.fullmatch(name) is not None


def check_project(name: str) -> str:
    """The name. Raises ``InvalidRequest``."""
    if not is_project(name):
        raise InvalidRequest(
            "Invalid project: up to 120 letters, digits and . _ : / -, beginning and ending with a "
            "letter or digit.",
            param="project",
        )
    return name


def known_projects(candidates: Iterable[str]) -> list[str]:
    """Those that a project may be called, each once. Raises ``PermissionDenied`` for none."""
    known = list(dict.fromkeys(name for name in candidates if is_project(name)))
    if not known:
        raise PermissionDenied(
            "You belong to no project of this gateway.", code="project_not_allowed"
        )
    return known
