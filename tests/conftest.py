"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
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
from tests.support.redis import redis_server, redis_url  # noqa: F401  (fixtures)
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

# How quickly examples are made and tried says how busy the machine is.
hypothesis.settings.register_profile(
    "understudy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("understudy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a real vLLM takes longest, and so begins."""
    items.sort(key=lambda item: REAL not in item.path.parents)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run beside each other, those of a file stay together, which share fixtures, and
    all those with a real vLLM, of which one of each kind is started."""
    from xdist.scheduler import LoadFileScheduling

    class ByServers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "real" if nodeid.startswith("tests/real/") else super()._split_scope(nodeid)

    return ByServers(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio alone: it is what uvicorn runs the application on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def variables() -> Iterator[None]:
    """Settings in the environment end with a test: commands leave theirs there for workers."""
    before = _variables()
    yield
    for name in _variables():
        del os.environ[name]
    os.environ.update(before)


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in os.environ if name.startswith("UNDERSTUDY_")}


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
