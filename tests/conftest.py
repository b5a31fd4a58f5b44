"""What every test may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.support.databases import (
    database,
    database_settings,
    postgres,
    postgres_template,
    postgres_url,
    sqlite_template,
)
from tests.support.milvus import milvus_server  # noqa: F401  (a fixture)
from tests.support.s3 import s3  # noqa: F401  (a fixture)
from tests.support.upstream import FakeVllm

__all__ = [  # fixtures that live in modules of their own
    "database",
    "database_settings",
    "postgres",
    "postgres_template",
    "postgres_url",
    "sqlite_template",
]


REAL = Path(__file__).parent / "real"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run beside each other, those of a file stay together, which share fixtures, and
    all those with real vLLM, of which one of each kind is started. These take longest and begin."""
    items.sort(key=lambda item: REAL not in item.path.parents)
    for item in items:
        group = "real" if REAL in item.path.parents else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


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
