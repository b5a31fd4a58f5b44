"""The slices that keep state, put together: files, uploads, vector stores, ingestion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from litestar.handlers import HTTPRouteHandler

from gateway.embeddings.embedder import Embedder
from gateway.file_processors.routes import file_processor_routes
from gateway.file_processors.service import FileProcessor
from gateway.files.routes import file_routes
from gateway.files.service import FileService
from gateway.http.intake import FormIntake
from gateway.ingestion.cleanup import CleanupService
from gateway.ingestion.reaper import Chore, Reaper
from gateway.ingestion.reconciler import Reconciler
from gateway.ingestion.repository import IngestionRepository
from gateway.ingestion.service import IngestionService
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ingestion.worker import Work, Worker
from gateway.ingestion.workspace import Workspace
from gateway.limits.quotas import Quotas
from gateway.observability.telemetry import Telemetry
from gateway.profile import Profile
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog
from gateway.settings import Settings
from gateway.state import State
from gateway.uploads.routes import upload_routes
from gateway.uploads.service import UploadService
from gateway.vector_stores.batch_routes import file_batch_routes
from gateway.vector_stores.batch_service import FileBatchService
from gateway.vector_stores.chunking import ChunkingResolver
from gateway.vector_stores.content import ContentService
from gateway.vector_stores.file_routes import store_file_routes
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.hits import HitRepository
from gateway.vector_stores.insert_routes import insert_routes
from gateway.vector_stores.insertion import ChunkInsertion
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.reranking import Reranker
from gateway.vector_stores.rewriting import QueryRewriter
from gateway.vector_stores.routes import vector_store_routes
from gateway.vector_stores.search import SearchService
from gateway.vector_stores.search_routes import search_routes
from gateway.vector_stores.service import VectorStoreService
from gateway.vector_stores.shapes import Shapes

__all__ = ["Stateful"]


class Stateful:
    """Services on top of the stateful ports, which ``state`` makes ready and closes."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        profile: Profile,
        catalog: Catalog,
        client: ModelClient,
        embedder: Embedder,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._state = state
        self._profile = profile
        self._catalog = catalog
        self._telemetry = telemetry
        self._client = client
        self._embedder = embedder
        self._data_dir = Path(settings.data_dir).absolute()
        self.workspace = Workspace(self._data_dir)
        self._last_active = LastActive(state.database)
        self.intake = FormIntake(settings.limits.max_concurrent_uploads)
        self._chunking = ChunkingResolver(catalog)
        self.files = FileService(
            state.database, state.objects, state.queue, profile, settings.limits
        )
        self.uploads = UploadService(
            state.database,
            state.objects,
            state.queue,
            self.files,
            settings.limits,
            settings.retention,
        )
        self.search = self._search()
        self._shapes = Shapes(catalog, profile)
        self.store_files = StoreFileService(
            state.database,
            state.queue,
            self._last_active,
            self._chunking,
            self._shapes,
            profile,
            settings.ingestion,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken."""
        async with self._last_active.running(), self.workspace.open():
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        processor = FileProcessor(
            self.files,
            self._state.converter,
            self._chunking,
            self.workspace,
            self._settings.ingestion,
        )
        return [
            *file_routes(self.files, self.intake),
            *upload_routes(self.uploads, self.intake),
            *file_processor_routes(processor, self.intake),
            *self._vector_store_routes(),
            *search_routes(
                self.search,
                ContentService(self._state.database, self._state.index, self._profile),
            ),
        ]

    def _vector_store_routes(self) -> list[HTTPRouteHandler]:
        database, queue, index = self._state.database, self._state.queue, self._state.index
        active, profile = self._last_active, self._profile
        shapes, files = self._shapes, self.store_files
        stores = VectorStoreService(
            database,
            index,
            queue,
            self._embedder,
            files,
            shapes,
            profile,
            Quotas(self._settings.limits),
        )
        batches = FileBatchService(database, queue, active, files, shapes, profile)
        insertion = ChunkInsertion(database, index, self._embedder, files)
        return [
            *vector_store_routes(stores),
            *store_file_routes(files),
            *file_batch_routes(batches),
            *insert_routes(insertion, self._settings.limits.max_body_bytes),
        ]

    def _search(self) -> SearchService:
        settings = self._settings.search
        return SearchService(
            hits=HitRepository(self._state.database),
            index=self._state.index,
            embedder=self._embedder,
            rewriter=QueryRewriter(self._client, settings.rewrite_model),
            reranker=Reranker(self._catalog, self._client, settings.rerank_model),
            last_active=self._last_active,
            settings=settings,
            profile=self._profile,
        )

    def worker(self, others: Sequence[Work], chores: Mapping[str, Chore]) -> Worker:
        """What ingests files and removes what was deleted, and does other slices' work."""
        state, settings = self._state, self._settings
        workspace = Workspace(self._data_dir)
        ingestion = IngestionService(
            IngestionRepository(state.database),
            objects=state.objects,
            converter=state.converter,
            index=state.index,
            # Its own, so that queries don't wait behind the chunks of files.
            embedder=Embedder(self._catalog, self._client, settings.embedding),
            catalog=self._catalog,
            client=self._client,
            telemetry=self._telemetry,
            workspace=workspace,
            settings=settings.ingestion,
            embedding=settings.embedding,
        )
        tombstones = TombstoneRepository(state.database)
        reconciler = Reconciler(
            state.database,
            state.objects,
            state.index,
            grace_seconds=settings.retention.leftover_seconds,
            # What lies in the data folder is no other gateway's; a bucket may be.
            owns_objects=settings.objects.kind == "disk" and settings.objects.path is None,
            owns_index=settings.vectors.uri is None,
        )
        reaper = Reaper(
            self.files,
            self.uploads,
            tombstones,
            reconciler,
            state.objects,
            state.queue,
            settings.retention,
            chores,
        )
        return Worker(
            state.queue,
            ingestion,
            CleanupService(tombstones, state.objects, state.index),
            reaper,
            workspace,
            files_at_once=settings.ingestion.workers,
            others=others,
        )
