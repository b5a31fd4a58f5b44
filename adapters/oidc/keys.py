"""The public keys of an issuer: fetched, kept, and fetched again when they change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any

import httpx
import jwt
import msgspec
from msgspec import Meta, Struct

from gateway.errors import Unauthenticated, UpstreamUnavailable
from gateway.settings import OidcSettings

__all__ = ["IssuerKeys", "VerifyingKey"]

logger = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 1024 * 1024
_MAX_KEYS = 200
_NOT_JSON = (msgspec.DecodeError, msgspec.ValidationError, RecursionError)


class _Discovery(Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _KeySet(Struct, frozen=True):
    keys: Annotated[list[dict[str, Any]], Meta(max_length=_MAX_KEYS)]


class VerifyingKey(Struct, frozen=True):
    """A public key, as the library has it, and the algorithm that it is for, where that is said."""

    key: Any
    algorithm: str | None


class IssuerKeys:
    """Keys by their ids.

    They are fetched anew every ``keys_seconds``, while the old ones go on being used; and at once
    when a token names one that isn't there, though not more often than every ``refetch_seconds``.
    An issuer that is away leaves the keys that were there.
    """

    def __init__(self, settings: OidcSettings, client: httpx.AsyncClient) -> None:
        assert settings.issuer is not None  # configuration has checked
        self._issuer = settings.issuer
        self._url = settings.jwks_url
        self._client = client
        self._keys: dict[str | None, VerifyingKey] | None = None
        self._every = settings.keys_seconds
        self._apart = settings.refetch_seconds
        self._due = 0.0
        self._earliest = 0.0
        self._reached = False
        """Whether the last fetch was a success."""
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> VerifyingKey:
        """The key with this id; without an id, the only key that there is.

        Raises ``Unauthenticated`` where the issuer has none, ``UpstreamUnavailable`` where it
        can't be asked.
        """
        now = time.monotonic()
        found = self._known(key_id)
        if found is not None:
            if now >= self._due and now >= self._earliest:
                self._fetch_soon()
            return found
        if self._fetching is not None or now >= self._earliest:
            await asyncio.shield(self._fetch_soon())
            found = self._known(key_id)
            if found is not None:
                return found
        if not self._reached:
            raise UpstreamUnavailable(
                "The issuer of tokens can't be reached at the moment.", code="identity_unavailable"
            )
        raise Unauthenticated("The token is signed with a key that its issuer doesn't have.")

    async def fetch(self) -> None:
        """Try to fetch them now. Never raises."""
        await asyncio.shield(self._fetch_soon())

    async def aclose(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _known(self, key_id: str | None) -> VerifyingKey | None:
        keys = self._keys or {}
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(key_id)

    def _fetch_soon(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="fetch the issuer's keys")
        return self._fetching

    async def _fetch(self) -> None:
        self._earliest = time.monotonic() + self._apart
        try:
            document = await self._get(await self._keys_url())
            self._keys = _usable(msgspec.json.decode(document, type=_KeySet).keys)
            self._due = time.monotonic() + self._every
            self._reached = True
        except (httpx.HTTPError, *_NOT_JSON, ValueError) as error:
            self._reached = False
            logger.warning("The keys of %s can't be fetched: %s", self._issuer, _cause(error))
        finally:
            self._fetching = None

    async def _keys_url(self) -> str:
        """As configured, or as the issuer says; ``ValueError`` where it isn't that issuer."""
        if self._url is not None:
            return self._url
        document = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        found = msgspec.json.decode(document, type=_Discovery)
        if found.issuer != self._issuer:
            raise ValueError(f"the discovery document is of {found.issuer[:200]!r}")
        if self._issuer.startswith("https:") and not found.jwks_uri.startswith("https:"):
            raise ValueError("the discovery document names keys that are not under https")
        return found.jwks_uri

    async def _get(self, url: str) -> bytes:
        async with self._client.stream("GET", url, headers={"accept": "application/json"}) as got:
            if got.status_code != 200:
                raise ValueError(f"{url} answered {got.status_code}")
            body = bytearray()
            async for block in got.aiter_bytes():
                body += block
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise ValueError(f"{url} answered with more than {MAX_DOCUMENT_BYTES} bytes")
            return bytes(body)


def _usable(keys: list[dict[str, Any]]) -> dict[str | None, VerifyingKey]:
    """Those that verify signatures; secrets that are shared are none of them."""
    found: dict[str | None, VerifyingKey] = {}
    for key in keys:
        if key.get("kty") == "oct" or key.get("use") == "enc":
            continue
        try:
            usable = jwt.PyJWK(_public(key))
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # of a kind that we don't know, and don't need to
        found[usable.key_id] = VerifyingKey(usable.key, key.get("alg"))
    return found


def _public(key: Mapping[str, Any]) -> dict[str, Any]:
    """Without the private half, should somebody have published it."""
    return {name: value for name, value in key.items() if name not in ("d", "p", "q", "k")}


def _cause(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
