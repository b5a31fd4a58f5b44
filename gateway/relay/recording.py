"""Keeping an answer that passes: what a relay is told to do beside relaying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.http.asgi import Scope

__all__ = ["Record", "Recorder"]


class Record(Protocol):
    """One answer that is kept. Is shown it in one piece or event by event."""

    def answer(self, body: bytes) -> None:
        """A plain answer, whole, as the caller gets it."""

    def event(self, data: bytes) -> None:
        """One good event's data of a stream, in order; with the model server's name of the model,
        and usage also where the caller isn't shown it.
        """

    async def finish(self) -> None:
        """The answer is complete. Its last bytes go out when this returns, which takes no longer
        than a bound and never raises; a second call does nothing.
        """


class Recorder(Protocol):
    """Decides by the request; nothing is done for those that aren't kept."""

    when: frozenset[bool | None]
    """The values of a request's ``store`` with which its answer is kept."""

    def begin(self, scope: Scope, request: Any, body: bytes) -> Record:
        """Raises ``InvalidRequest`` where what is to be kept with the answer is wrong."""
