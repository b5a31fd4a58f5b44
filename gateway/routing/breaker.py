"""Leaving a backend alone that fails, and finding out when it works again.

::

             failures in a row, no connection, a hang
    closed ────────────────────────────────────────► open
      ▲ ▲                                          │   ▲
      │ └────── a good answer, of whatever ────────┤   │ the probe fails: twice as long
      │                                  time is up│   │
      └──────────────────────────────────────── half open

The probe is the gateway's own (:mod:`gateway.routing.prober`): no caller waits for a server that
is known to hang. A backend that only says that it has too much to do isn't broken; it is set aside
for as long as it asks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from gateway.errors import GatewayError, UpstreamError, UpstreamTimeout, UpstreamTotalTimeout

if TYPE_CHECKING:
    from gateway.settings import RoutingSettings

__all__ = ["Breaker", "BreakerState", "Reason", "reason_of"]

BreakerState = Literal["closed", "open", "half_open"]
Reason = Literal["unreachable", "failing", "slow", "overloaded"]

LONGEST_ASIDE_SECONDS = 60.0
"""A server's ``retry-after`` is believed up to this."""

_OUR_LIMIT = "too_many_connections"


def reason_of(error: GatewayError) -> Reason | None:
    """What an error says against the backend; ``None`` where it says nothing.

    A caller's mistake, a caller's leaving and the limit on a whole answer don't.
    """
    if error.nothing_sent or error.code == "upstream_tls_failed":
        return "unreachable"
    if error.status in (429, 503):
        return "overloaded" if error.code != _OUR_LIMIT else None
    if isinstance(error, UpstreamTimeout):
        return None if isinstance(error, UpstreamTotalTimeout) else "slow"
    if isinstance(error, UpstreamError) or error.status >= 500:
        return "failing"
    return None


class Breaker:
    """One backend's. ``settings`` may be replaced at any time.

    ``changed`` is told each new state, ``ejected`` why the backend is left alone.
    """

    __slots__ = (
        "_aside_until",
        "_changed",
        "_clock",
        "_ejected",
        "_failures",
        "_jitter",
        "_trips",
        "_until",
        "reason",
        "settings",
        "state",
        "successes",
    )

    def __init__(
        self,
        settings: RoutingSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        changed: Callable[[BreakerState], None] = lambda _: None,
        ejected: Callable[[Reason], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.state: BreakerState = "closed"
        self.reason: Reason | None = None
        """Why it isn't closed."""
        self.successes = 0
        """How often it has worked."""
        self._clock = clock
        self._jitter = jitter
        self._changed = changed
        self._ejected = ejected
        self._failures = 0
        self._trips = 0
        self._until = 0.0
        self._aside_until = 0.0

    def allows(self, now: float) -> bool:
        """Whether callers may be sent there."""
        return self.state == "closed" and now >= self._aside_until

    def is_aside(self, now: float) -> bool:
        """Whether it has asked to be left alone, and that alone keeps callers away."""
        return self.state == "closed" and now < self._aside_until

    @property
    def back_at(self) -> float:
        """When it may be asked again, at the earliest; by its clock."""
        return self._until if self.state != "closed" else self._aside_until

    def succeeded(self) -> None:
        """It has given a good answer, or one that tells a caller of a mistake."""
        self._failures = 0
        self.successes += 1
        if self.state != "closed":
            self._trips = 0
            self.reason = None
            self._become("closed")

    def failed(
        self, reason: Reason, *, retry_after: float | None = None, since: int | None = None
    ) -> None:
        """A caller's request failed there. What fails while the breaker is open was sent before,
        or as a last resort, and says nothing new.

        ``since`` is what ``successes`` was when it was sent: where nothing has worked in all that
        time, a slow server hangs, and no further caller needs to find that out.
        """
        if self.state != "closed":
            return
        if reason == "overloaded":
            self._set_aside(retry_after or 1.0)
            return
        self._failures += 1
        hangs = reason == "slow" and since == self.successes
        if reason == "unreachable" or hangs or self._failures >= self.settings.breaker_failures:
            self._open(reason)

    def probe_is_due(self) -> bool:
        return self.state == "open" and self._clock() >= self._until

    def begin_probe(self) -> None:
        self._become("half_open")

    def probe_failed(self, reason: Reason) -> None:
        self._open(reason)

    def _open(self, reason: Reason) -> None:
        settings = self.settings
        seconds = min(
            settings.breaker_seconds * 2.0 ** min(self._trips, 32), settings.breaker_max_seconds
        )
        # Replicas that have seen the same failure shouldn't all probe at the same moment.
        self._until = self._clock() + seconds * (0.75 + 0.25 * self._jitter())
        self._trips += 1
        self._failures = 0
        first = self.state == "closed"
        self.reason = reason
        self._become("open")
        if first:
            self._ejected(reason)

    def _set_aside(self, seconds: float) -> None:
        now = self._clock()
        if now >= self._aside_until:
            self._ejected("overloaded")
        self._aside_until = max(self._aside_until, now + min(seconds, LONGEST_ASIDE_SECONDS))

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._changed(state)
