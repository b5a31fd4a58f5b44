"""What a model's name says of its being a guard. Its server doesn't tell."""

from __future__ import annotations

import re

from gateway.settings import GuardForm

__all__ = ["guard_form", "judges_images"]

_LLAMA_GUARD = re.compile(r"llama-?guard")
_GRANITE_GUARDIAN = re.compile(r"granite-?(?:[\d-]+-?)?guardian")
_WITH_IMAGES = re.compile(r"llama-?guard-?(?:4|\d+(?:-\d+b)?-vision)")
_BETWEEN_WORDS = re.compile(r"[^a-z0-9]+")


def guard_form(name: str) -> GuardForm | None:
    """The form of the guard that a name such as ``meta-llama/Llama-Guard-3-8B`` belongs to;
    ``None`` for a model that is no guard by its name.
    """
    plain = _plain(name)
    if _LLAMA_GUARD.search(plain):
        return "llama_guard"
    if _GRANITE_GUARDIAN.search(plain):
        return "granite_guardian"
    return None


def judges_images(name: str) -> bool:
    """Whether it is one of the guards that look at images."""
    return _WITH_IMAGES.search(_plain(name)) is not None


def _plain(name: str) -> str:
    return _BETWEEN_WORDS.sub("-", name.lower())
