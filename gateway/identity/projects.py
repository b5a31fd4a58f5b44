"""Names of projects."""

from __future__ import annotations

import re

from gateway.errors import InvalidRequest, PermissionDenied
from gateway.settings.section import PROJECT_PATTERN

__all__ = ["check_project", "choose_project", "is_project"]

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


def choose_project(candidates: list[str], wanted: str | None) -> str:
    """The project of a caller who belongs to these, the first one where it doesn't say which.

    Whoever belongs to one project only is never asked: OpenAI's SDKs send the name of a project at
    OpenAI by themselves. Raises ``PermissionDenied``.
    """
    known = [name for name in candidates if is_project(name)]
    if not known:
        raise PermissionDenied(
            "You belong to no project of this gateway.", code="project_not_allowed"
        )
    if wanted is None or len(known) == 1:
        return known[0]
    if wanted not in known:
        raise PermissionDenied(
            "You don't belong to the project in the header 'OpenAI-Project'.",
            param="OpenAI-Project",
            code="project_not_allowed",
        )
    return wanted
