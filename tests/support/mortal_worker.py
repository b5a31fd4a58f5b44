"""A worker in a process of its own, made to be killed: the gateway's own worker over SQLite, a
folder of objects and an index in a file, with a model that takes its time.

    with MortalWorkers(folder, url) as workers:
        workers.start()
        workers.kill()
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import random
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from opentelemetry.sdk.trace import TracerProvider

from adapters.disk import DiskObjectStore
from adapters.sqlite import SqliteQueue
from gateway.database.engine import Database
from gateway.files.service import FileService
from gateway.ingestion import indexer
from gateway.ingestion.cleanup import CleanupService
from gateway.ingestion.reaper import Reaper
from gateway.ingestion.reconciler import Reconciler
from gateway.ingestion.repository import IngestionRepository
from gateway.ingestion.service import IngestionService
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ingestion.worker import Worker
from gateway.ingestion.workspace import Workspace
from gateway.observability.metrics import Metrics
from gateway.observability.telemetry import Telemetry
from gateway.observability.tracing import Tracing
from gateway.profile import profile_of
from gateway.routing.catalog import Model
from gateway.settings import (
    DatabaseSettings,
    EmbeddingSettings,
    IngestionSettings,
    LimitSettings,
    RetentionSettings,
)
from gateway.uploads.service import UploadService
from tests.support.file_index import FileVectorIndex
from tests.support.ingestion import TextConverter

LEASE_SECONDS = 0.3
DIMENSION = 8


class SlowEmbedder:
    """Vectors of the words, after a pause in which a kill may fall."""

    def model(self, name: str) -> Model:
        return Model(id=name, backends=[], kind="embedding")

    async def embed(
        self, activity: Any, model: str, texts: Sequence[str], *, cut: bool = False
    ) -> list[Sequence[float]]:
        await asyncio.sleep(random.uniform(0, 0.01))
        return [vector_of(text) for text in texts]


def vector_of(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [byte - 127.5 for byte in digest[:DIMENSION]]


def parts(folder: Path, url: str) -> SimpleNamespace:
    """What a worker, or who watches it, works with."""
    database = Database(DatabaseSettings(url=url), folder)
    objects = DiskObjectStore(folder / "objects", threads=4)
    queue = SqliteQueue(database, lease_seconds=LEASE_SECONDS)
    limits, retention = LimitSettings(), RetentionSettings()
    files = FileService(database, objects, queue, profile_of("openai"), limits)
    uploads = UploadService(database, objects, queue, files, limits, retention)
    index = FileVectorIndex(folder / "index.db")
    return SimpleNamespace(
        database=database,
        objects=objects,
        queue=queue,
        files=files,
        uploads=uploads,
        index=index,
        tombstones=TombstoneRepository(database),
        reconciler=Reconciler(
            database, objects, index, grace_seconds=0, owns_objects=True, owns_index=True
        ),
    )


async def _work(folder: Path, url: str) -> None:
    have = parts(folder, url)
    indexer._WRITE_BATCH = 5  # so that a file takes several writes
    workspace = Workspace(folder)
    ingestion = IngestionService(
        IngestionRepository(have.database),
        objects=have.objects,
        converter=TextConverter(),
        index=have.index,
        embedder=SlowEmbedder(),  # type: ignore[arg-type]
        catalog=None,  # type: ignore[arg-type]
        client=None,  # type: ignore[arg-type]
        telemetry=Telemetry(Tracing(provider=TracerProvider(), processors=[]), Metrics()),
        workspace=workspace,
        settings=IngestionSettings(max_attempts=1_000_000),
        embedding=EmbeddingSettings(batch_size=2),
    )
    worker = Worker(
        have.queue,
        ingestion,
        CleanupService(have.tombstones, have.objects, have.index),
        Reaper(
            have.files,
            have.uploads,
            have.tombstones,
            have.reconciler,
            have.objects,
            have.queue,
            RetentionSettings(interval_seconds=3600),
        ),
        workspace,
        files_at_once=3,
    )
    await worker.run()


def _main(folder: Path, url: str) -> None:
    asyncio.run(_work(folder, url))


class MortalWorkers:
    """Forked from a server that has imported everything, so that one starts in milliseconds."""

    def __init__(self, folder: Path, url: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._arguments = (folder, url)
        self._running: list[BaseProcess] = []

    def start(self) -> None:
        process = self._context.Process(target=_main, args=self._arguments, daemon=True)
        process.start()
        self._running.append(process)

    def kill(self) -> None:
        """SIGKILL to the oldest one."""
        process = self._running.pop(0)
        assert process.is_alive(), f"it ended by itself with {process.exitcode}"
        process.kill()
        process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            process = self._running.pop()
            process.kill()
            process.join()
