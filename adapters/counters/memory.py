"""Counters of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.ports import Held, Hold, Take, Taken

__all__ = ["MemoryCounters"]

_TIDIED_AT_ONCE = 1000


class MemoryCounters:
    """The ``CounterStore`` port for a gateway that is a single process."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float, float]] = {}
        """Units, when that was, and when it may be forgotten."""
        self._slots: dict[str, dict[str, tuple[int, float]]] = {}

    async def take(self, takes: Sequence[Take]) -> list[Taken]:
        now = time.monotonic()
        return [self._take(one, now) for one in takes]

    async def hold(self, holder: str, holds: Sequence[Hold], seconds: float) -> list[Held]:
        now = time.monotonic()
        return [self._hold(holder, one, now, seconds) for one in holds]

    async def tidy(self) -> int:
        now = time.monotonic()
        old = [key for key, one in self._used.items() if one[2] < now][:_TIDIED_AT_ONCE]
        for key in old:
            del self._used[key]
        return len(old)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _take(self, one: Take, now: float) -> Taken:
        used, at, _ = self._used.get(one.key, (0.0, now, 0.0))
        if one.seconds is not None:
            used -= (now - at) * one.limit / one.seconds
        used = max(0.0, max(0.0, used) + one.owed)
        granted = min(one.amount, int(one.limit - used))
        if granted < max(one.least, 1):
            granted = 0
        used += granted
        self._used[one.key] = (used, now, now + one.lifetime)
        return Taken(granted, used)

    def _hold(self, holder: str, one: Hold, now: float, seconds: float) -> Held:
        holders = self._slots.setdefault(one.key, {})
        for name in [name for name, (_, until) in holders.items() if until < now]:
            del holders[name]
        others = sum(slots for name, (slots, _) in holders.items() if name != holder)
        slots = max(one.in_use, min(one.slots, one.limit - others))
        if slots:
            holders[holder] = (slots, now + seconds)
        else:
            holders.pop(holder, None)
            if not holders:
                del self._slots[one.key]
        return Held(slots, others)
