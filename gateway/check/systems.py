"""The systems as the server has them: how each is made, and nothing made yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec import Struct

from gateway.database.engine import Database
from gateway.ports import (
    ContentDetector,
    CounterStore,
    DocumentConverter,
    ModelServer,
    ObjectStore,
    TokenReviewer,
    TokenVerifier,
    ToolServer,
    VectorIndex,
    WebSearch,
)
from gateway.settings import BackendSettings, ModelSettings, Settings, VectorSettings

__all__ = ["KServeNamespace", "Systems"]


class KServeNamespace(Struct, frozen=True, kw_only=True):
    """What a namespace has of InferenceServices, or why it can't be told."""

    namespace: str
    services: int = 0
    models: Sequence[ModelSettings] = ()
    """Of those that are ready, each with its one backend."""
    problem: str | None = None
    status: int | None = None
    """The API server's, where it refused."""


class Systems(Struct, frozen=True, kw_only=True):
    """Settings, and what makes each adapter of them. Who makes one closes it.

    Each may raise ``SettingsError``, so they are called by the look at that system alone.
    """

    settings: Settings
    data_dir: Path
    model_server: Callable[[BackendSettings], ModelServer]
    database: Callable[[], Database]
    counters: Callable[[], CounterStore]
    """Of a store of its own; those in the database need no look."""
    objects: Callable[[], ObjectStore]
    index: Callable[[VectorSettings], VectorIndex]
    index_is_taken: Callable[[Path], bool]
    """Whether a process that is no gateway has this folder of Milvus Lite open."""
    converter: Callable[[], DocumentConverter]
    search: Callable[[], WebSearch | None]
    tool_servers: Callable[[], ToolServer]
    detectors: Callable[[], dict[str, ContentDetector]]
    kserve: Callable[[], Awaitable[Sequence[KServeNamespace]]]
    verifier: Callable[[], TokenVerifier]
    reviewer: Callable[[], TokenReviewer]
