"""Verifying a token (JWT) with its issuer's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import jwt

from adapters.oidc.keys import IssuerKeys
from adapters.web.tls import context_for
from gateway.errors import Unauthenticated
from gateway.settings import OidcSettings

__all__ = ["OidcVerifier"]

TIMEOUT_SECONDS = 5.0

_REFUSALS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "The token has expired."),
    (jwt.ImmatureSignatureError, "The token is not valid yet."),
    (jwt.InvalidAudienceError, "The token is not meant for this gateway."),
    (jwt.InvalidIssuerError, "The token is of another issuer."),
    (jwt.InvalidSignatureError, "The token's signature is wrong."),
    (jwt.InvalidAlgorithmError, "The token is signed in a way that is not accepted."),
    (jwt.MissingRequiredClaimError, "The token lacks a claim that it must have."),
)
"""What is wrong, the more special ones first."""


class OidcVerifier:
    """Accepts the algorithms of the settings only, whatever a token's head says."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._algorithms = frozenset(settings.algorithms)
        self._client = httpx.AsyncClient(
            verify=context_for(settings.ca_file),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )
        self._keys = IssuerKeys(settings, self._client)

    async def start(self) -> None:
        await self._keys.fetch()

    async def verify(self, token: str) -> Mapping[str, Any]:
        key_id, algorithm = self._head(token)
        key = await self._keys.find(key_id)
        if key.algorithm not in (None, algorithm):
            raise Unauthenticated("The token is signed in another way than its key is for.")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError, RecursionError) as error:
            raise Unauthenticated(_why(error)) from None
        return claims

    async def aclose(self) -> None:
        await self._keys.aclose()
        await self._client.aclose()

    def _head(self, token: str) -> tuple[str | None, str]:
        """The key's id and the algorithm, which nothing vouches for yet."""
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("The bearer token is no signed JWT.") from None
        key_id, algorithm = head.get("kid"), head.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthenticated("The token is signed in a way that is not accepted.")
        return (key_id if isinstance(key_id, str) else None), algorithm


def _why(error: Exception) -> str:
    for kind, message in _REFUSALS:
        if isinstance(error, kind):
            return message
    return "The token is not valid."
