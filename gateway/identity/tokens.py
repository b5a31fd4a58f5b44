"""Bearer tokens: taken from the request, proven once, remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
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

_Principals = Sequence[Principal]
"""One caller, once for each of its projects."""

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
        self._good: Remembered[_Principals] = Remembered(entries)
        self._bad: Remembered[GatewayError] = Remembered(entries)
        self._asking: dict[bytes, asyncio.Task[_Principals]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def recall(self, headers: Headers, address: Address) -> Principal | None:  # noqa: ARG002  (the protocol's)
        token = bearer_token(headers)
        if token is None or (known := self._good.get(_key(token))) is None:
            return None
        return _meant(known, headers)

    async def authenticate(self, headers: Headers, address: Address) -> Principal:  # noqa: ARG002  (the protocol's)
        token = bearer_token(headers)
        if token is None:
            raise Unauthenticated(f"You didn't provide an API key. {_HOW}")
        key = _key(token)
        if (known := self._good.get(key)) is not None:
            return _meant(known, headers)
        if (refused := self._bad.get(key)) is not None:
            raise _again(refused)
        asking = self._asking.get(key)
        if asking is None:
            if len(self._asking) >= _MOST_ASKED:
                return _meant(self._known_or(key, _too_many()), headers)
            asking = asyncio.create_task(self._ask(key, token))
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._asked(key, task))
        # The others who wait don't leave with this caller.
        return _meant(await asyncio.shield(asking), headers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._prover.running():
            try:
                yield
            finally:
                for task in list(self._asking.values()):
                    task.cancel()

    async def _ask(self, key: bytes, token: bytes) -> _Principals:
        try:
            async with asyncio.timeout(_ASKED_SECONDS), self._room:
                proven = await self._prove(token)
        except TimeoutError:
            return self._known_or(key, _too_many())
        except (Unauthenticated, PermissionDenied) as error:
            self._good.forget(key)
            # Without its traceback, which holds on to the request and the token.
            self._bad.put(key, _again(error), self._prover.refusal_seconds)
            raise
        except UpstreamUnavailable as error:
            return self._known_or(key, error)
        self._good.put(key, proven.principals, proven.seconds, proven.at_worst_seconds)
        return proven.principals

    def _known_or(self, key: bytes, error: UpstreamUnavailable) -> _Principals:
        """What was known a while ago, where that is better than nothing; else raises."""
        known = self._good.get_old(key)
        if known is None:
            raise error
        self._good.renew(key, self._prover.refusal_seconds)
        return known

    async def _prove(self, token: bytes) -> Proven:
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            raise Unauthenticated("Incorrect API key provided.") from None
        return await self._prover.prove(text)

    def _asked(self, key: bytes, task: asyncio.Task[_Principals]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # seen, also where every caller has left


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


def _key(token: bytes) -> bytes:
    return sha256(token).digest()


def _meant(principals: _Principals, headers: Headers) -> Principal:
    """The caller in the project of the header ``OpenAI-Project``; in the first one without it.

    Whoever belongs to one project only is never asked: OpenAI's SDKs send the name of a project at
    OpenAI by themselves. Raises ``PermissionDenied``.
    """
    if len(principals) == 1:
        return principals[0]
    wanted = next((value for name, value in headers if name == b"openai-project"), b"")
    if not wanted:
        return principals[0]
    project = wanted.decode("latin-1")
    for one in principals:
        if one.project == project:
            return one
    raise PermissionDenied(
        "You don't belong to the project in the header 'OpenAI-Project'.",
        param="OpenAI-Project",
        code="project_not_allowed",
    )


def _too_many() -> UpstreamUnavailable:
    return UpstreamUnavailable(
        "Too many keys are being looked up at the moment. Try again.", code="identity_unavailable"
    )


def _again(error: GatewayError) -> GatewayError:
    """The same refusal, as an object of its own: one that is raised gathers what raised it."""
    return type(error)(error.message, param=error.param, code=error.code)
