"""What every test may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trustme

from tests.support.upstream import FakeVllm


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio alone: it is what uvicorn runs the application on."""
    return "asyncio"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeVllm]:
    """A fake vLLM with the chat model `fake-chat`."""
    async with FakeVllm(["fake-chat"]) as server:
        yield server


@pytest.fixture
async def embedding_upstream() -> AsyncIterator[FakeVllm]:
    """A fake vLLM with the embedding model `fake-embedding`."""
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="session")
def private_ca() -> trustme.CA:
    """A certificate authority that nobody trusts by default."""
    return trustme.CA()
