"""Whose a token of an OpenID Connect issuer is, as its claims say."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import Unauthenticated
from gateway.identity.authenticator import Proven
from gateway.identity.principal import Principal
from gateway.identity.projects import known_projects
from gateway.identity.scopes import ORDINARY
from gateway.ports import TokenVerifier
from gateway.settings import OidcSettings

__all__ = ["OidcTokens"]

MOST_SECONDS = 60.0
"""How long a token is gone by without looking at its signature again."""

_MAX_SUBJECT_CHARACTERS = 200


class OidcTokens:
    """A prover that goes by claims which the issuer has signed."""

    chooses_project = True

    def __init__(self, verifier: TokenVerifier, settings: OidcSettings) -> None:
        self._verifier = verifier
        self._settings = settings
        self.refusal_seconds = min(10.0, settings.refetch_seconds)

    async def prove(self, token: str) -> Proven:
        claims = await self._verifier.verify(token)
        settings = self._settings
        subject = _claim(claims, settings.subject_claim)
        if not isinstance(subject, str) or not subject:
            raise Unauthenticated(f"The token has no claim '{settings.subject_claim}'.")
        left = float(claims["exp"]) + settings.leeway_seconds - time.time()
        scopes = self._scopes(claims)
        return Proven(
            principals=[
                Principal(project=project, subject=subject[:_MAX_SUBJECT_CHARACTERS], scopes=scopes)
                for project in known_projects(self._projects(claims))
            ],
            seconds=max(0.0, min(MOST_SECONDS, left)),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._verifier.start()
        try:
            yield
        finally:
            await self._verifier.aclose()

    def _projects(self, claims: Mapping[str, Any]) -> list[str]:
        """In the order of the mapping, or of the claim."""
        settings = self._settings
        given = _values(_claim(claims, settings.project_claim))
        if settings.projects:
            held = frozenset(given)
            given = [one for value, one in settings.projects.items() if value in held]
        if not given and settings.default_project is not None:
            return [settings.default_project]
        return given

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        settings = self._settings
        roles = _values(_claim(claims, settings.roles_claim))
        known = [settings.roles[role] for role in roles if role in settings.roles]
        if known:
            return frozenset().union(*known)
        default = settings.default_scopes
        return ORDINARY if default is None else frozenset(default)


def _claim(claims: Mapping[str, Any], name: str | None) -> Any:
    """``a.b`` is a claim of that name, or else ``b`` within ``a``."""
    if name is None or name in claims:
        return claims.get(name) if name is not None else None
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _values(claim: Any) -> list[str]:
    """A claim that is one text, or a list of them."""
    if isinstance(claim, str):
        return [claim]
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []
