"""Callers whom a proxy in front has asked who they are, and says so in headers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.errors import PermissionDenied, Unauthenticated
from gateway.identity.authenticator import Address, Headers
from gateway.identity.principal import Principal
from gateway.identity.projects import known_projects
from gateway.identity.scopes import ORDINARY, SCOPES
from gateway.settings import UpstreamHeaderSettings

__all__ = ["ProxyAuthenticator"]

_MAX_CHARACTERS = 200
_SEPARATORS = re.compile(r"[\s,]+")


class ProxyAuthenticator:
    """Believes those headers from the proxy's addresses, and nothing from anywhere else.

    The address is the connection's. What ``x-forwarded-for`` says plays no part: anybody can
    write that.
    """

    def __init__(self, settings: UpstreamHeaderSettings) -> None:
        self._user = settings.user_header.lower().encode("ascii")
        self._project = settings.project_header.lower().encode("ascii")
        self._scopes = settings.scopes_header.lower().encode("ascii")
        self._default_project = settings.default_project
        default = settings.default_scopes
        self._default_scopes = ORDINARY if default is None else frozenset(default)
        networks = [ip_network(one) for one in settings.trusted]
        self.secrets = frozenset(
            {
                *(self._user, self._project, self._scopes),
                *(b"authorization", b"proxy-authorization", b"x-api-key"),
            }
        )

        @lru_cache(maxsize=1024)
        def is_trusted(host: str) -> bool:
            try:
                address = ip_address(host)
            except ValueError:
                return False
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            return any(address in network for network in networks)

        self._is_trusted = is_trusted

    def recall(self, headers: Headers, address: Address) -> Principal | None:
        """Nobody needs to be asked, so that who it is is always known at once."""
        if address is None or not self._is_trusted(address[0]):
            raise PermissionDenied(
                "Requests are taken from the authenticating proxy only "
                "(identity.upstream_header.trusted).",
                code="proxy_not_trusted",
            )
        user = self._one(headers, self._user)
        if user is None:
            raise Unauthenticated("The proxy in front doesn't say who you are.")
        project = self._one(headers, self._project) or self._default_project
        return Principal(
            project=known_projects([project] if project else [])[0],
            subject=user,
            scopes=self._scopes_of(headers),
        )

    async def authenticate(self, headers: Headers, address: Address) -> Principal:
        principal = self.recall(headers, address)
        assert principal is not None  # it raises instead
        return principal

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def _scopes_of(self, headers: Headers) -> frozenset[str]:
        """Those that are scopes: the proxy may speak of others' too."""
        given = self._one(headers, self._scopes)
        if given is None:
            return self._default_scopes
        return frozenset(_SEPARATORS.split(given)) & SCOPES.keys()

    def _one(self, headers: Headers, wanted: bytes) -> str | None:
        """The header's value. A second one may have come past the proxy, so neither is believed."""
        found = [value for name, value in headers if name == wanted]
        if len(found) > 1:
            raise Unauthenticated(f"The header '{wanted.decode()}' is there more than once.")
        if not found or not found[0].strip():
            return None
        try:
            text = found[0].decode("utf-8").strip()
        except UnicodeDecodeError:
            text = "\0"
        if not text.isprintable() or len(text) > _MAX_CHARACTERS:
            raise Unauthenticated(f"The header '{wanted.decode()}' can't be read.")
        return text
