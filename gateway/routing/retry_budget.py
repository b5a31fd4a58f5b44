"""A bound on retries, so that a model whose servers fail isn't asked twice as much for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import RoutingSettings

__all__ = ["RetryBudget"]

PER_SECOND = 1.0


class RetryBudget:
    """One model's tokens: a request adds ``retry_share`` of one, a retry takes one.

    There are ``retry_reserve`` at first and at most, and one more each second.
    """

    __slots__ = ("_at", "_clock", "_tokens", "settings")

    def __init__(
        self, settings: RoutingSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._tokens = float(settings.retry_reserve)
        self._at = clock()

    def requested(self) -> None:
        """A request was made that may come to need a retry."""
        settings = self.settings
        self._tokens = min(self._tokens + settings.retry_share, max(settings.retry_reserve, 1.0))

    def spend(self) -> bool:
        """Whether one more retry may be made."""
        now = self._clock()
        if self.settings.retry_reserve:
            self._tokens = min(
                self._tokens + (now - self._at) * PER_SECOND, self.settings.retry_reserve
            )
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
