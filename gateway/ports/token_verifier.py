"""Those outside who know whose a bearer token is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

__all__ = ["ReviewedUser", "TokenReviewer", "TokenVerifier"]


class TokenVerifier(Protocol):
    """An issuer whose signature makes a token's claims true."""

    async def start(self) -> None:
        """Get ready, as far as that is possible now. Never raises."""

    async def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that is the issuer's, for us, and not over; ``exp`` is one of them.

        Raises ``Unauthenticated`` for any other, and ``UpstreamUnavailable`` where the issuer
        would have to be asked and can't be.
        """

    async def aclose(self) -> None:
        """Give back what is held."""


class ReviewedUser(Struct, frozen=True, kw_only=True):
    """A user as a cluster knows it."""

    username: str
    groups: Sequence[str] = ()


class TokenReviewer(Protocol):
    """A server that is asked about each token."""

    async def review(self, token: str) -> ReviewedUser:
        """Whose it is.

        Raises ``Unauthenticated`` where it is nobody's or not for us, and ``UpstreamUnavailable``
        where the server can't be asked, or doesn't let us ask.
        """

    async def aclose(self) -> None:
        """Give back what is held."""
