"""Asking whether a request may go to its model: what a relay does before it calls a server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.http.asgi import Scope
    from gateway.identity.principal import Principal
    from gateway.observability.call import ModelCall

__all__ = ["Admission", "ComposedAdmission", "Lease", "Turns"]


class Lease(Protocol):
    """One request in progress."""

    def end(self, call: ModelCall | None) -> None:
        """It is over; ``call`` is the last one, which may have told its usage. Never raises."""


class Admission(Protocol):
    async def begin(self, scope: Scope, model: str, request: Any, body: bytes) -> Lease | None:
        """``model`` is the catalog's id. ``None`` where nothing limits the request.

        Raises ``RateLimited`` and ``CountersAway``.
        """


class ComposedAdmission(Protocol):
    """For requests that become several calls, each of which is counted by itself."""

    def composed(
        self, scope: Scope, model: str, max_tokens: int | None
    ) -> AbstractAsyncContextManager[None]:
        """The time of the request. ``model`` may be an alias.

        Entering raises as ``Admission`` does.
        """


class Turns(Protocol):
    """For work that nobody waits for, such as a line of a batch."""

    def turn(
        self, principal: Principal, model: str, tokens: int
    ) -> AbstractAsyncContextManager[None]:
        """Begins when the limits of its principal allow a request of so many tokens, however long
        that takes, and lasts as long as the block.
        """
