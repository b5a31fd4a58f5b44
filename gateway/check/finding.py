"""What a look at one system comes to."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

__all__ = ["Finding", "Outcome", "State", "failed", "fine", "shown", "skipped", "warned"]

State = Literal["ok", "warning", "failed", "skipped"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What a probe found. Neither text holds a secret."""

    state: State
    found: str
    mend: str | None = None
    """What to do about it, where something is to be done."""
    system: str | None = None
    """Where it is about something else than its probe."""
    address: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """An outcome with the system that it is about: a row of the table."""

    system: str
    address: str
    state: State
    found: str
    mend: str | None
    seconds: float
    """How long the look took."""


def fine(found: str, *, system: str | None = None, address: str | None = None) -> Outcome:
    return Outcome(state="ok", found=found, system=system, address=address)


def warned(
    found: str, mend: str, *, system: str | None = None, address: str | None = None
) -> Outcome:
    """It works, but not as it should, or not for long."""
    return Outcome(state="warning", found=found, mend=mend, system=system, address=address)


def failed(
    found: str, mend: str, *, system: str | None = None, address: str | None = None
) -> Outcome:
    return Outcome(state="failed", found=found, mend=mend, system=system, address=address)


def skipped(found: str) -> Outcome:
    """There was nothing to look at."""
    return Outcome(state="skipped", found=found)


def shown(url: str) -> str:
    """A URL without what could be a secret: user, password, query and fragment."""
    try:
        split = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    if not split.netloc:
        return url.partition("?")[0]
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}".rstrip("/")
