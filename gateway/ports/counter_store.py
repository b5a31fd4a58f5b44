"""Counters that all replicas share: what has been used of a limit, and who holds a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from gateway.errors import GatewayError

__all__ = ["CounterStore", "CountersAway", "Held", "Hold", "Take", "Taken"]


class CountersAway(GatewayError):
    """The counters can't be reached, and the settings say that nothing passes uncounted."""

    status = 503
    type = "service_unavailable"
    default_code = "limits_unavailable"
    default_retry_after = 1


class Take(Struct, frozen=True, kw_only=True):
    """Take units of a limit ahead of their use.

    What is used fades evenly: ``limit`` units in ``seconds``; with ``None`` it stays, for a limit
    whose key names its period. ``owed`` was used already and is counted whatever the limit says;
    a negative one gives back. Then up to ``amount`` units are granted, and none where that would
    be fewer than ``least``.
    """

    key: str
    limit: int
    seconds: float | None
    owed: int = 0
    amount: int = 0
    least: int = 0
    lifetime: float = 3600.0
    """How many seconds the counter must be remembered after this."""


class Taken(Struct, frozen=True):
    """``used`` is by everybody, what was granted just now included."""

    granted: int
    used: float


class Hold(Struct, frozen=True, kw_only=True):
    """Keep places of a limit on what is in progress: at least ``in_use``, up to ``slots``."""

    key: str
    limit: int
    in_use: int
    slots: int


class Held(Struct, frozen=True):
    """How many places this holder has now, and how many the others have."""

    slots: int
    others: int


class CounterStore(Protocol):
    """Any number of processes use one store at once, and a limit is one limit for all of them.

    Each method does all or nothing, and raises ``UpstreamUnavailable`` where the store is away.
    """

    async def take(self, takes: Sequence[Take]) -> list[Taken]:
        """Of different keys; in their order."""

    async def hold(self, holder: str, holds: Sequence[Hold], seconds: float) -> list[Held]:
        """The holder's places from now on, for so many seconds: who doesn't ask again by then has
        died, and its places are free. What it held before is replaced.
        """

    async def tidy(self) -> int:
        """Forget counters whose time is over, a bounded number; how many."""

    async def aclose(self) -> None: ...
