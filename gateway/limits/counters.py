"""What a process knows of a limit, and what it may give out of it without asking.

A process takes units ahead: a fiftieth of a limit by the minute, a thousandth of one by the month.
What it has taken is nobody else's, so a limit is never exceeded; what it doesn't use it gives back
within a second or two. Once three quarters of a limit are used nothing is taken ahead any more.
"""

from __future__ import annotations

import time

from gateway.ports import Hold, Take

__all__ = ["Allowance", "Counter", "Slots"]

_AHEAD = 50
_AHEAD_OF_A_SUM = 1000
_IDLE_SECONDS = 2.0
_SCARCE = 4
"""A quarter of the limit is left: from there on every unit is asked for."""

_REFUSED_SECONDS = 0.1
"""How long a refusal is believed without asking again."""

_MINUTE = 60.0
_REMEMBERED = 5 * _MINUTE
_MONTH_REMEMBERED = 40 * 24 * 3600.0


class Allowance:
    """Units of a limit by the minute, or (``ends``, in seconds since the epoch) by the month."""

    __slots__ = (
        "_ahead",
        "_rate",
        "_refused_until",
        "_seen",
        "_taken",
        "_used",
        "ends",
        "enough",
        "key",
        "left",
        "limit",
        "limit_text",
        "settles",
        "used_at",
    )

    def __init__(self, key: str, limit: int, *, ends: float | None = None) -> None:
        self.key = key
        self.limit = limit
        self.ends = ends
        self.left = 0
        """Taken and not yet given out; below zero is what must still be counted."""
        self.used_at = time.monotonic()
        self._rate = limit / _MINUTE if ends is None else 0.0
        self._ahead = limit // (_AHEAD if ends is None else _AHEAD_OF_A_SUM)
        self.enough = self._ahead // 2
        """Fewer left are few."""
        self.limit_text = b"%d" % limit
        self.settles = False
        """Whether what was taken is only a guess until the request is over."""
        self._used = 0.0
        self._seen = self.used_at
        self._refused_until = 0.0
        self._taken = False
        """Whether it was used since `used_at` was set: the clock is not read for every request."""

    # -- for requests ---------------------------------------------------------------------------

    def take(self, units: int) -> None:
        """Give out units; there must be so many."""
        self.left -= units
        self._taken = True

    def give(self, units: int) -> None:
        """So many weren't needed, or (below zero) more were."""
        self.left += units

    @property
    def low(self) -> bool:
        """Whether it is time to take more ahead, before a request has to wait for it."""
        return self.left < self.enough and not self.scarce

    def remaining(self, now: float | None = None) -> float:
        """How much of the limit is free, as far as is known here; ``now`` is ``monotonic()``."""
        if now is None:
            now = time.monotonic()
        used = max(0.0, self._used - self._rate * (now - self._seen))
        # What was taken ahead long ago has faded, and is no more than the limit all the same.
        return min(self.limit, self.limit - used + self.left)

    def seconds_until(self, units: float, remaining: float | None = None) -> float:
        """When so many units will be free, if nobody takes any."""
        if self.ends is not None:
            return max(0.0, self.ends - time.time())
        if remaining is None:
            remaining = self.remaining()
        return (units - remaining) / self._rate if units > remaining else 0.0

    def still_counted(self, units: int, seconds: float) -> int:
        """How many of the units that were taken so long ago have not faded yet."""
        return max(0, int(units - self._rate * seconds))

    @property
    def refuses(self) -> bool:
        """Whether it has just been refused, so that asking again is no use."""
        return self._refused_until > time.monotonic()

    # -- for the ledger -------------------------------------------------------------------------

    @property
    def scarce(self) -> bool:
        return self.remaining() * _SCARCE < self.limit

    def ask(self, needs: list[int]) -> Take | None:
        """What is to be taken and given back now; ``None`` for nothing.

        What is left or owed is in the question, and is no more here. :meth:`undo` takes it back.
        """
        if needs:
            self._taken = True
        idle = self._is_idle()
        scarce = self.scarce
        owed = -self.left if self.left < 0 or ((scarce or idle) and not needs) else 0
        left = self.left + owed
        target = sum(needs) + (0 if scarce or idle else self._ahead)
        amount = max(0, target - left)
        if not amount and not owed:
            return None
        self.left = left
        least = max(1, min(needs) - left) if needs else 1
        return self._question(owed=owed, amount=amount, least=least)

    def give_all(self) -> Take | None:
        """At the end: what is left goes back, what is owed is counted."""
        if not self.left:
            return None
        owed, self.left = -self.left, 0
        return self._question(owed=owed)

    def answered(self, granted: int, used: float) -> None:
        self.left += granted
        self._used = used
        self._seen = time.monotonic()

    def refused(self) -> None:
        self._refused_until = time.monotonic() + _REFUSED_SECONDS

    def undo(self, take: Take) -> None:
        self.left -= take.owed

    @property
    def forgettable(self) -> bool:
        return self.left == 0

    @property
    def due(self) -> bool:
        """Whether the store must be told something though nobody waits."""
        if self.left < 0:
            return True
        return self.left > 0 and (self.scarce or self._is_idle())

    def _is_idle(self) -> bool:
        now = time.monotonic()
        if self._taken:
            self.used_at, self._taken = now, False
        return now - self.used_at > _IDLE_SECONDS

    def _question(self, *, owed: int = 0, amount: int = 0, least: int = 1) -> Take:
        return Take(
            key=self.key,
            limit=self.limit,
            seconds=_MINUTE if self.ends is None else None,
            owed=owed,
            amount=amount,
            least=least,
            lifetime=_REMEMBERED if self.ends is None else _MONTH_REMEMBERED,
        )


class Slots:
    """Places of a limit on requests in progress."""

    __slots__ = ("_asked_at", "_held", "_in_use", "_spare", "key", "left", "limit", "used_at")

    enough = 0

    def __init__(self, key: str, limit: int) -> None:
        self.key = key
        self.limit = limit
        self.used_at = time.monotonic()
        self._spare = limit // _AHEAD
        self._held = 0
        self._in_use = 0
        self.left = 0
        """Places held and not in use."""
        self._asked_at = 0.0

    def take(self, units: int) -> None:
        self._in_use += units
        self.left -= units

    def give(self, units: int) -> None:
        self._in_use -= units
        self.left += units

    @property
    def low(self) -> bool:
        return False

    @property
    def has_spare(self) -> bool:
        """Whether it holds places that others may need."""
        return self.left > self._spare or self._in_use == 0

    @property
    def refuses(self) -> bool:
        return False

    def seconds_until(self, _: float) -> float:
        """Nobody knows; soon, most likely."""
        return 1.0

    def ask(self, needs: list[int]) -> Hold:
        if needs:
            self.used_at = time.monotonic()
        self._asked_at = time.monotonic()
        slots = self._in_use + sum(needs) + (self._spare if needs or self._in_use else 0)
        self.left = min(self.left, slots - self._in_use)  # what goes back is no more here
        return Hold(key=self.key, limit=self.limit, in_use=self._in_use, slots=slots)

    def answered(self, slots: int) -> None:
        self._held = slots
        self.left = slots - self._in_use

    def undo(self) -> None:
        """What was asked didn't come about."""
        self.left = self._held - self._in_use

    def nothing_held(self) -> Hold:
        """At the end."""
        self._held = 0
        return Hold(key=self.key, limit=self.limit, in_use=0, slots=0)

    @property
    def held(self) -> int:
        return self._held

    @property
    def forgettable(self) -> bool:
        return self._in_use == 0 and self._held == 0

    def is_due(self, every: float) -> bool:
        """Whether the store must hear of it: places to give back, or that it is still alive."""
        if self._in_use > self._held:  # some passed while the store was away
            return True
        if self.left > self._spare or (self._held and not self._in_use):
            return True
        return self._held > 0 and time.monotonic() - self._asked_at > every


Counter = Allowance | Slots
