"""How busy a server is."""

from __future__ import annotations

__all__ = ["Load"]


class Load:
    """One server's: what this process has in flight there, and what the server says of its queue.

    ``down`` is whether it could not be reached when it was last asked for its models.
    """

    __slots__ = ("_then", "_told", "down", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.down = False
        self._told: int | None = None
        self._then = 0

    def told(self, requests: int | None) -> None:
        """The server says that it has so many, running and waiting, of whoever sent them."""
        self._told = requests
        self._then = self.in_flight

    @property
    def estimate(self) -> int:
        """Requests that it has now: what it said, and what this process has sent it since."""
        if self._told is None:
            return self.in_flight
        return max(self.in_flight, self._told + self.in_flight - self._then)
