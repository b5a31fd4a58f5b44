"""What a process remembers of tokens that were refused."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import Unauthenticated
from gateway.identity.authenticator import Proven
from gateway.identity.tokens import TokenAuthenticator

pytestmark = pytest.mark.anyio


class Nobody:
    """Knows no token."""

    refusal_seconds = 60.0

    async def prove(self, token: str) -> Proven:
        raise Unauthenticated("Incorrect API key provided.")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield


class Headers(list[tuple[bytes, bytes]]):
    """A list that can be referred to weakly."""


async def test_a_refusal_does_not_hold_on_to_its_request():
    """It is remembered by the token's digest, without what was asked or the token itself."""
    tokens = TokenAuthenticator(Nobody(), entries=10)

    async def ask() -> weakref.ref[Headers]:
        headers = Headers([(b"authorization", b"Bearer a-token-that-nobody-may-see")])
        with pytest.raises(Unauthenticated):
            await tokens.authenticate(headers, None)
        return weakref.ref(headers)

    request = await asyncio.create_task(ask())
    await asyncio.sleep(0)
    gc.collect()
    assert request() is None
