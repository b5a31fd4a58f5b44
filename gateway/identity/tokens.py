"""Bearer tokens: taken from the request, proven once, remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

from gateway.errors import GatewayError, PermissionDenied, Unauthenticated, UpstreamUnavailable
from gateway.identity.authenticator import Address, Headers, Proven, Prover
from gateway.identity.principal import Principal
from gateway.identity.remembered import Remembered

__all__ = ["TokenAuthenticator", "bearer_token"]

MAX_TOKEN_BYTES = 16 * 1024
"""A token with all of a person's groups is a few kilobytes long."""

_AT_ONCE = 8
"""Unknown tokens that are asked about at a time; a flood of them must not take every connection."""

_MOST_ASKED = 256
_ASKED_SECONDS = 10.0
"""How many may wait for that, and for how long, before they are told to come again."""

_SCHEMES = (b"bearer ",)
_HOW = "Send it as 'Authorization: Bearer KEY'."


class TokenAuthenticator:
    """Known tokens cost a digest and a look-up. Of unknown ones, each is asked about once.

    A token is remembered by its digest, so that no memory of the process holds one for longer than
    its request. Good and bad ones are remembered apart: however many bad ones come, they displace
    no good one.
    """

    secrets = frozenset({b"authorization", b"x-api-key", b"proxy-authorization"})

    def __init__(self, prover: Prover, *, entries: int) -> None:
        self._prover = prover
        self._good: Remembered[Principal] = Remembered(entries)
        self._bad: Remembered[GatewayError] = Remembered(entries)
        self._asking: dict[bytes, asyncio.Task[Principal]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def recall(self, headers: Headers, address: Address) -> Principal | None:  # noqa: ARG002  (the protocol's)
        token = bearer_token(headers)
        return self._good.get(self._key(token, headers)) if token is not None else None

    async def authenticate(self, headers: Headers, address: Address) -> Principal:  # noqa: ARG002  (the protocol's)
        token = bearer_token(headers)
        if token is None:
            raise Unauthenticated(f"You didn't provide an API key. {_HOW}")
        key = self._key(token, headers)
        if (refused := self._bad.get(key)) is not None:
            raise _again(refused)
        asking = self._asking.get(key)
        if asking is None:
            if len(self._asking) >= _MOST_ASKED:
                return self._known_or(key, _too_many())
            asking = asyncio.create_task(self._ask(key, token, self._project(headers)))
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._asked(key, task))
        return await asyncio.shield(asking)  # the others who wait don't leave with this caller

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._prover.running():
            try:
                yield
            finally:
                for task in list(self._asking.values()):
                    task.cancel()

    async def _ask(self, key: bytes, token: bytes, project: str | None) -> Principal:
        try:
            async with asyncio.timeout(_ASKED_SECONDS), self._room:
                proven = await self._prove(token, project)
        except TimeoutError:
            return self._known_or(key, _too_many())
        except (Unauthenticated, PermissionDenied) as error:
            self._good.forget(key)
            # Without its traceback, which holds on to the request and the token.
            self._bad.put(key, _again(error), self._prover.refusal_seconds)
            raise
        except UpstreamUnavailable as error:
            return self._known_or(key, error)
        self._good.put(key, proven.principal, proven.seconds, proven.at_worst_seconds)
        return proven.principal

    def _known_or(self, key: bytes, error: UpstreamUnavailable) -> Principal:
        """What was known a while ago, where that is better than nothing; else raises."""
        known = self._good.get_old(key)
        if known is None:
            raise error
        self._good.renew(key, self._prover.refusal_seconds)
        return known

    async def _prove(self, token: bytes, project: str | None) -> Proven:
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            raise Unauthenticated("Incorrect API key provided.") from None
        return await self._prover.prove(text, project)

    def _asked(self, key: bytes, task: asyncio.Task[Principal]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # seen, also where every caller has left

    def _key(self, token: bytes, headers: Headers) -> bytes:
        digest = sha256(token)
        if self._prover.chooses_project:
            digest.update(b"\n" + (_header(headers, b"openai-project") or b""))
        return digest.digest()

    def _project(self, headers: Headers) -> str | None:
        if not self._prover.chooses_project:
            return None
        given = _header(headers, b"openai-project")
        return given.decode("latin-1") if given else None


def bearer_token(headers: Headers) -> bytes | None:
    """The token of ``authorization: Bearer …``, or of ``x-api-key``, as Anthropic's clients do.

    Raises ``Unauthenticated`` where it can't be one.
    """
    token: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() not in _SCHEMES:
                raise Unauthenticated(f"The header 'authorization' holds no bearer token. {_HOW}")
            given = value[7:].strip()
        elif name == b"x-api-key":
            given = value.strip()
        else:
            continue
        if token is not None and token != given:
            raise Unauthenticated("You provided more than one API key.")
        token = given
    if token is not None and len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated(f"An API key or token has at most {MAX_TOKEN_BYTES} bytes.")
    return token or None


def _header(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)


def _too_many() -> UpstreamUnavailable:
    return UpstreamUnavailable(
        "Too many keys are being looked up at the moment. Try again.", code="identity_unavailable"
    )


def _again(error: GatewayError) -> GatewayError:
    """The same refusal, as an object of its own: one that is raised gathers what raised it."""
    return type(error)(error.message, param=error.param, code=error.code)
