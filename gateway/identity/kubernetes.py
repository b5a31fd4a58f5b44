"""Whose a token is, as the cluster's API server says."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct

from gateway.identity.authenticator import Proven
from gateway.identity.principal import Principal
from gateway.identity.projects import known_projects
from gateway.identity.scopes import ORDINARY
from gateway.ports import ReviewedUser, TokenReviewer
from gateway.settings import KubernetesSettings

__all__ = ["KubernetesTokens"]

_SERVICE_ACCOUNT = "system:serviceaccount:"
_REFUSAL_SECONDS = 10.0


class _Claims(Struct, frozen=True):
    exp: float = math.inf


class KubernetesTokens:
    """A prover: service accounts belong to their namespace's project, users to their groups'."""

    chooses_project = True
    refusal_seconds = _REFUSAL_SECONDS

    def __init__(self, reviewer: TokenReviewer, settings: KubernetesSettings) -> None:
        self._reviewer = reviewer
        self._settings = settings

    async def prove(self, token: str) -> Proven:
        user = await self._reviewer.review(token)
        scopes = self._scopes(user)
        return Proven(
            principals=[
                Principal(project=project, subject=user.username[:253], scopes=scopes)
                for project in known_projects(self._projects(user))
            ],
            seconds=min(self._settings.cache_seconds, _seconds_left(token)),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._reviewer.aclose()

    def _projects(self, user: ReviewedUser) -> list[str]:
        settings = self._settings
        if user.username.startswith(_SERVICE_ACCOUNT):
            namespace = user.username.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
            if not settings.namespaces:
                return [namespace]
            return [settings.namespaces[namespace]] if namespace in settings.namespaces else []
        held = frozenset(user.groups)
        return [one for group, one in settings.groups.items() if group in held]

    def _scopes(self, user: ReviewedUser) -> frozenset[str]:
        """By groups, of which a service account has some too, or by its own name."""
        roles = self._settings.roles
        known = [roles[name] for name in (*user.groups, user.username) if name in roles]
        if known:
            return frozenset().union(*known)
        default = self._settings.default_scopes
        return ORDINARY if default is None else frozenset(default)


def _seconds_left(token: str) -> float:
    """Until a token ends that the API server has just vouched for, where the token says so."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return max(0.0, msgspec.json.decode(claims, type=_Claims).exp - time.time())
    except (ValueError, msgspec.DecodeError, RecursionError):  # no JWT: it doesn't say
        return math.inf
