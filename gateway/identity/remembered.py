"""What was found out a moment ago, and needn't be asked again: bounded in time and number."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

__all__ = ["Remembered"]

V = TypeVar("V")


class Remembered(Generic[V]):
    """At most ``entries`` values, each for a while. The one noted longest ago goes first."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._values: dict[bytes, tuple[V, float, float]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> V | None:
        """The value while it is fresh."""
        found = self._values.get(key)
        return found[0] if found is not None and time.monotonic() < found[1] else None

    def get_old(self, key: bytes) -> V | None:
        """The value while it is better than none."""
        found = self._values.get(key)
        return found[0] if found is not None and time.monotonic() < found[2] else None

    def put(self, key: bytes, value: V, seconds: float, at_worst_seconds: float = 0.0) -> None:
        """It is fresh for ``seconds``, and better than none for ``at_worst_seconds`` in all."""
        now = time.monotonic()
        self._values.pop(key, None)
        while len(self._values) >= self._entries:
            del self._values[next(iter(self._values))]
        self._values[key] = (value, now + seconds, now + max(seconds, at_worst_seconds))

    def renew(self, key: bytes, seconds: float) -> None:
        """It is fresh for so much longer, though not beyond the time that it was given in all."""
        value, _, at_worst = self._values[key]
        self._values[key] = (value, min(time.monotonic() + seconds, at_worst), at_worst)

    def forget(self, key: bytes) -> None:
        self._values.pop(key, None)
