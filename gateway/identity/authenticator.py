"""Finding out who asks.

::

    Authenticator
    ├── TokenAuthenticator     a bearer token, proven by
    │   ├── ApiKeys            … the database
    │   ├── OidcTokens         … an issuer's signature
    │   └── KubernetesTokens   … the cluster's API server
    └── ProxyAuthenticator     the headers of a proxy that is trusted
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from gateway.identity.principal import Principal

__all__ = ["Address", "Authenticator", "Headers", "Proven", "Prover"]

Headers = Sequence[tuple[bytes, bytes]]
Address = tuple[str, int] | None
"""Where the connection comes from: never what a header says about it."""


class Authenticator(Protocol):
    """One way of proving who one is."""

    secrets: frozenset[bytes]
    """The headers that carry the proof. Nothing behind the edge gets to see them."""

    def recall(self, headers: Headers, address: Address) -> Principal | None:
        """Who asks, where that is known without asking anybody; ``None`` where it isn't.

        Raises as :meth:`authenticate` does.
        """

    async def authenticate(self, headers: Headers, address: Address) -> Principal:
        """Who asks.

        Raises ``Unauthenticated`` where that isn't proven, ``PermissionDenied`` where it is and
        doesn't help, and ``UpstreamUnavailable`` where it can't be found out now.
        """

    def running(self) -> AbstractAsyncContextManager[None]:
        """The time in which requests are taken."""


class Proven(Struct, frozen=True, kw_only=True):
    """Who a token belongs to, and for how many seconds one may go by that.

    There is one principal for each project of the caller; the first one is meant where a request
    doesn't say which. ``at_worst_seconds`` is for when it can't be asked again.
    """

    principals: Sequence[Principal]
    seconds: float
    at_worst_seconds: float = 0.0


class Prover(Protocol):
    """Knows whose a token is."""

    refusal_seconds: float
    """For how long a token that was refused is not looked at again."""

    async def prove(self, token: str) -> Proven:
        """Raises as :meth:`Authenticator.authenticate` does."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """The time in which it is asked."""
