"""Moderation and shields."""

from __future__ import annotations

from gateway.settings.section import Section


class ModerationSettings(Section, frozen=True):
    """What judges content."""

    default_model: str | None = None
    """Where a request names none; the only moderation model there is when left out."""
