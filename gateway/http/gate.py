"""Nobody comes in unknown: who asks is found out before anything else of a request is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.errors import NotFound
from gateway.identity.authenticator import Authenticator
from gateway.identity.scopes import PUBLIC, check_scope, scope_of_path

if TYPE_CHECKING:
    from gateway.http.asgi import Scope
    from gateway.observability.exchange import Exchange

__all__ = ["Gate", "check_that_routes_have_scopes"]


class Gate:
    """Stands at the edge where an identity is asked for. What isn't public is closed."""

    def __init__(self, authenticator: Authenticator, paths: Iterable[str]) -> None:
        """``paths`` are the ones of the data path, whose scopes are looked up beforehand."""
        self._authenticator = authenticator
        self._secrets = authenticator.secrets
        self._needed = {path: scope_of_path(path) for path in paths}

    async def admit(self, exchange: Exchange, scope: Scope) -> None:
        """Put the ``principal`` into the request's state, and take its credentials away.

        Raises ``Unauthenticated``, ``MissingScope`` and the other errors of an authenticator, and
        ``NotFound`` for a path that has no place in the table of scopes.
        """
        headers, path = scope["headers"], exchange.path
        if path in PUBLIC:
            scope["headers"] = exchange.headers = self._without_secrets(headers)
            return
        authenticator, address = self._authenticator, scope.get("client")
        try:
            principal = authenticator.recall(headers, address)
            if principal is None:
                principal = await authenticator.authenticate(headers, address)
        finally:
            scope["headers"] = exchange.headers = self._without_secrets(headers)
        scope["state"]["principal"] = exchange.caller = principal
        needed = self._needed.get(path) or scope_of_path(path)
        if needed is None:
            raise NotFound(f"Unknown request URL: {exchange.method} {path}.", code="unknown_url")
        check_scope(principal, needed)

    def _without_secrets(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        secrets = self._secrets
        return [header for header in headers if header[0] not in secrets]


def check_that_routes_have_scopes(paths: Iterable[str]) -> None:
    """Raises ``LookupError`` for a route that the gate would never let anybody reach."""
    closed = [path for path in paths if path not in PUBLIC and scope_of_path(path) is None]
    if closed:
        raise LookupError(
            f"no scope opens {', '.join(sorted(closed))}: see gateway/identity/scopes"
        )
