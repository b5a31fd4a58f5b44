"""Who is told what routing does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.ports import ModelServer

__all__ = ["Observer"]


class Observer:
    """Hears of it and does nothing; the metrics are one that counts."""

    def answered(self, server: ModelServer, *, up: bool) -> None:
        """A server was asked for its models."""

    def loaded(self, server: ModelServer, in_flight: int) -> None:
        """So many requests are in flight there now, from this process; told every second."""

    def gone(self, server: ModelServer) -> None:
        """The server isn't used any more."""

    def state_changed(self, server: ModelServer, model: str, state: str) -> None:
        """The breaker of this model there is ``closed``, ``open`` or ``half_open`` now."""

    def ejected(self, server: ModelServer, model: str, reason: str) -> None:
        """This backend is left alone for a while: ``unreachable``, ``failing``, ``slow`` or
        ``overloaded``.
        """

    def retried(self, model: str, error_type: str) -> None:
        """A request to this model is sent to another backend, after this."""

    def retry_refused(self, model: str) -> None:
        """A request was not sent to another backend, since there were too many retries."""
