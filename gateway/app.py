"""The one composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from adapters.vllm import VllmServer
from gateway.chat.routes import chat_routes
from gateway.chat.service import CHAT
from gateway.completions.routes import completion_routes
from gateway.completions.service import COMPLETION
from gateway.database.engine import Database
from gateway.database.migrate import upgrade
from gateway.embeddings.embedder import Embedder
from gateway.embeddings.routes import embedding_routes
from gateway.embeddings.service import EMBEDDINGS
from gateway.errors import GatewayError, MethodNotAllowed, NotFound, error_for_status
from gateway.files.routes import file_routes
from gateway.files.service import FileService
from gateway.http.asgi import ASGIApp
from gateway.http.edge import Edge
from gateway.http.intake import FormIntake
from gateway.http.relayed import relays_by_path
from gateway.http.requests import activity_of, principal_of
from gateway.ingestion.cleanup import CleanupService
from gateway.ingestion.reaper import Reaper
from gateway.ingestion.reconciler import Reconciler
from gateway.ingestion.repository import IngestionRepository
from gateway.ingestion.service import IngestionService
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ingestion.worker import Worker
from gateway.ingestion.workspace import Workspace
from gateway.management.routes import inspection_routes, probe_routes
from gateway.management.service import ManagementService
from gateway.messages.routes import message_routes
from gateway.messages.service import COUNT_TOKENS, MESSAGES
from gateway.models.routes import model_routes
from gateway.models.service import ModelService
from gateway.observability.exporters import build_tracing, load_exporters, resource_for
from gateway.observability.metrics import Metrics
from gateway.observability.otlp_metrics import MetricsPusher
from gateway.observability.telemetry import Telemetry
from gateway.observability.tracing import Tracing
from gateway.ports import DocumentConverter, JobQueue, ModelServer, ObjectStore, VectorIndex
from gateway.profile import profile_of
from gateway.relay.client import ModelClient
from gateway.relay.operation import Operation
from gateway.relay.relay import Relay
from gateway.rerank.routes import rerank_routes
from gateway.rerank.service import INFERENCE_RERANK, RERANK
from gateway.routing.catalog import Catalog
from gateway.routing.discovery import Discovery
from gateway.settings import BackendSettings, Settings
from gateway.state import State
from gateway.tokenize.routes import tokenize_routes
from gateway.tokenize.service import DETOKENIZE, TOKENIZE
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


class Application:
    """The gateway, put together.

    ``public`` is the ASGI application of the API; ``management`` that of the management port, and
    ``None`` where the same port serves both. ``litestar`` is what routes all but the data path.
    """

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self.settings = settings
        self._profile = profile_of(settings.server.profile)
        self.metrics = Metrics()
        resource = resource_for(settings.telemetry.service_name)
        self.tracing = tracing or build_tracing(resource)
        self.telemetry = Telemetry(
            self.tracing, self.metrics, access_log=settings.telemetry.access_log
        )
        self._pusher = MetricsPusher(self.metrics.registry, resource, load_exporters("metrics"))
        self._surroundings: AbstractAsyncContextManager[None] = nullcontext()
        self.catalog = Catalog()
        self.discovery = Discovery(
            settings, self.catalog, self._model_server, answered=self._server_answered
        )
        self.state = _state(settings)
        self.client = ModelClient(self.catalog)
        self.embedder = Embedder(self.catalog, self.client, settings.embedding)
        self.intake = FormIntake(settings.limits.max_concurrent_uploads)
        self.files = FileService(
            self.state.database,
            self.state.objects,
            self.state.queue,
            self._profile,
            settings.limits,
        )
        self.uploads = UploadService(
            self.state.database,
            self.state.objects,
            self.state.queue,
            self.files,
            settings.limits,
            settings.retention,
        )
        self.last_active = LastActive(self.state.database)
        self.search = self._search()
        service = ManagementService(self.discovery, self._profile, self.state)
        probes = probe_routes(service, self.metrics)
        separate = settings.server.management_port is not None
        self.handlers = [*self._api_routes(service), *([] if separate else probes)]
        self.litestar = _litestar(self.handlers, lifespan=[self._lifespan])
        self.public = Edge(
            cast("ASGIApp", self.litestar), self.telemetry, relays_by_path(self.handlers)
        )
        self.management = (
            Edge(cast("ASGIApp", _litestar(probes)), self.telemetry, relays={})
            if separate
            else None
        )

    def around(self, surroundings: AbstractAsyncContextManager[None]) -> None:
        """Enter this before the first request is taken, and leave it after the last."""
        self._surroundings = surroundings

    def _api_routes(self, service: ManagementService) -> list[HTTPRouteHandler]:
        relay = self._relay
        return [
            *chat_routes(relay(CHAT)),
            *completion_routes(relay(COMPLETION)),
            *embedding_routes(relay(EMBEDDINGS)),
            *rerank_routes(relay(RERANK), relay(INFERENCE_RERANK)),
            *tokenize_routes(relay(TOKENIZE), relay(DETOKENIZE)),
            *message_routes(relay(MESSAGES), relay(COUNT_TOKENS)),
            *model_routes(ModelService(self.catalog, self._profile)),
            *inspection_routes(service),
            *file_routes(self.files, self.intake),
            *upload_routes(self.uploads, self.intake),
            *search_routes(
                self.search,
                ContentService(self.state.database, self.state.index, self._profile),
            ),
            *self._vector_store_routes(),
        ]

    def _vector_store_routes(self) -> list[HTTPRouteHandler]:
        database, queue, index = self.state.database, self.state.queue, self.state.index
        profile, shapes = self._profile, Shapes(self.catalog, self._profile)
        chunking = ChunkingResolver(self.catalog)
        files = StoreFileService(
            database, queue, self.last_active, chunking, shapes, profile, self.settings.ingestion
        )
        stores = VectorStoreService(database, index, queue, self.embedder, files, shapes, profile)
        batches = FileBatchService(database, queue, self.last_active, files, shapes, profile)
        insertion = ChunkInsertion(database, index, self.embedder, files)
        return [
            *vector_store_routes(stores),
            *store_file_routes(files),
            *file_batch_routes(batches),
            *insert_routes(insertion, self.settings.limits.max_body_bytes),
        ]

    def _search(self) -> SearchService:
        settings = self.settings.search
        return SearchService(
            hits=HitRepository(self.state.database),
            index=self.state.index,
            embedder=self.embedder,
            rewriter=QueryRewriter(self.client, settings.rewrite_model),
            reranker=Reranker(self.catalog, self.client, settings.rerank_model),
            last_active=self.last_active,
            settings=settings,
            profile=self._profile,
        )

    def _relay(self, operation: Operation[Any]) -> Relay:
        return Relay(
            operation,
            self.catalog,
            max_body_bytes=self.settings.limits.max_body_bytes,
            capture_content=self.tracing.captures_content,
        )

    def _model_server(self, backend: BackendSettings) -> ModelServer:
        return VllmServer(
            backend,
            timeouts=self.settings.timeouts,
            limits=self.settings.limits,
            heartbeat=self.settings.server.heartbeat_seconds,
            changed=self.metrics.connections_changed,
        )

    def _server_answered(self, server: ModelServer, up: bool) -> None:  # noqa: FBT001  (a callback)
        self.metrics.server_answered(server.host, server.port, up=up)

    def worker(self) -> Worker:
        """What ingests files and removes what was deleted."""
        state, settings = self.state, self.settings
        workspace = Workspace(Path(settings.data_dir).absolute())
        ingestion = IngestionService(
            IngestionRepository(state.database),
            objects=state.objects,
            converter=state.converter,
            index=state.index,
            # Its own, so that queries don't wait behind the chunks of files.
            embedder=Embedder(self.catalog, self.client, settings.embedding),
            catalog=self.catalog,
            client=self.client,
            telemetry=self.telemetry,
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
        )
        return Worker(
            state.queue,
            ingestion,
            CleanupService(tombstones, state.objects, state.index),
            reaper,
            workspace,
            files_at_once=settings.ingestion.workers,
        )

    def _work(self) -> Callable[[], Awaitable[None]] | None:
        """The ingestion worker's loop, where the server does that work itself."""
        return self.worker().run if self.settings.ingestion.embedded_worker else None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The time in which ``understudy worker`` works; it has everything but the API."""
        async with self._running(self.worker().run):
            yield

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        async with self._running(self._work()):
            yield

    @asynccontextmanager
    async def _running(self, work: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
        self._pusher.start()
        try:
            async with (
                self.discovery.running(),
                self.state.running(work),
                self.last_active.running(),
                self._surroundings,
            ):
                yield
        finally:
            self._pusher.shutdown()
            self.tracing.shutdown()


def create_app(settings: Settings, tracing: Tracing | None = None) -> Application:
    """The gateway for these settings; ``tracing`` in place of what the environment asks for."""
    return Application(settings, tracing)


def _state(settings: Settings) -> State:
    """The stateful ports. Adapters are imported here, so that only what is used is loaded."""
    data_dir = Path(settings.data_dir).absolute()
    database = Database(settings.database, data_dir)
    return State(
        database=database,
        objects=_object_store(settings, data_dir),
        index=_vector_index(settings, data_dir),
        converter=_converter(settings),
        queue=queue_of(settings, database),
        upgrade=upgrade,
    )


def _object_store(settings: Settings, data_dir: Path) -> ObjectStore:
    if settings.objects.kind == "minio":
        from adapters.minio import MinioObjectStore

        return MinioObjectStore(settings.objects)
    from adapters.disk import DiskObjectStore

    folder = Path(settings.objects.path or data_dir / "objects")

    return DiskObjectStore(folder, threads=settings.objects.threads)


def _vector_index(settings: Settings, data_dir: Path) -> VectorIndex:
    from adapters.milvus import MilvusIndex

    return MilvusIndex(settings.vectors, data_dir)


def _converter(settings: Settings) -> DocumentConverter:
    from adapters.docling import converter_for

    return converter_for(settings.documents, settings.ingestion)


def queue_of(settings: Settings, database: Database) -> JobQueue:
    if database.is_sqlite:
        from adapters.sqlite import SqliteQueue

        return SqliteQueue(database, lease_seconds=settings.ingestion.lease_seconds)
    from adapters.procrastinate import ProcrastinateQueue

    return ProcrastinateQueue(database, lease_seconds=settings.ingestion.lease_seconds)


def _litestar(handlers: list[HTTPRouteHandler], lifespan: list[Any] | None = None) -> Litestar:
    return Litestar(
        handlers,
        lifespan=lifespan or [],
        dependencies={
            "principal": Provide(principal_of, sync_to_thread=False),
            "activity": Provide(activity_of, sync_to_thread=False),
        },
        exception_handlers={
            GatewayError: _answer_error,
            HTTPException: _answer_http_exception,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )


def _answer_error(request: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    request.scope["state"]["exchange"].fail(error)
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(
        error.body(), status_code=error.status, media_type="application/json", headers=headers
    )


def _answer_http_exception(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[bytes]:
    """Litestar's own complaints, in the one shape."""
    method, path = request.scope["method"], request.scope["path"]
    shown: GatewayError
    if error.status_code == 404:
        shown = NotFound(f"Unknown request URL: {method} {path}.", code="unknown_url")
    elif error.status_code == 405:
        shown = MethodNotAllowed(f"Not allowed to {method} on {path}.", code="method_not_allowed")
    else:
        shown = error_for_status(error.status_code)(_detail(error), param=_param(error))
    response = _answer_error(request, shown)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _detail(error: HTTPException) -> str:
    """What is wrong, of a validation error with the parameter's name."""
    param = _param(error)
    if param is None:
        return error.detail
    return f"Invalid '{param}': {cast('Any', error.extra)[0].get('message', error.detail)}."


def _param(error: HTTPException) -> str | None:
    """The parameter that a validation error is about."""
    if isinstance(error.extra, list) and error.extra and isinstance(error.extra[0], dict):
        return error.extra[0].get("key")
    return None
