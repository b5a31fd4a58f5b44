"""Telling of an outage once when it begins and once when it is over, not at every try."""

from __future__ import annotations

import logging
import time

__all__ = ["Outage"]

_AGAIN_SECONDS = 60.0


class Outage:
    """What goes away, as log lines name it. One for each process and system."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._since: float | None = None
        self._told = 0.0

    def noticed(self, cause: str) -> None:
        """It failed: told the first time, and once a minute while it lasts."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._told < _AGAIN_SECONDS:
            return
        self._told = now
        self._logger.warning("%s failed: %s", self._what, cause)

    def over(self) -> None:
        """It works: told where it didn't before."""
        if self._since is not None:
            lasted = time.monotonic() - self._since
            self._since = None
            self._logger.info("%s answers again, after %.0f s", self._what, lasted)
