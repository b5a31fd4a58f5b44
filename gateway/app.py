"""The one composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from msgspec.structs import replace

from adapters.vllm import VllmServer
from gateway.agentic import Agentic
from gateway.chat.routes import chat_routes
from gateway.chat.service import CHAT
from gateway.check.systems import KServeNamespace, Systems
from gateway.completions.routes import completion_routes
from gateway.completions.service import COMPLETION
from gateway.database.engine import Database
from gateway.database.migrate import upgrade
from gateway.embeddings.embedder import Embedder
from gateway.embeddings.routes import embedding_routes
from gateway.embeddings.service import EMBEDDINGS
from gateway.http.asgi import ASGIApp
from gateway.http.edge import Edge
from gateway.http.gate import Gate, check_that_routes_have_scopes
from gateway.http.relayed import relays_by_path
from gateway.http.router import router_of
from gateway.identity.authenticator import Authenticator, Prover
from gateway.identity.key_prover import ApiKeys
from gateway.identity.kubernetes import KubernetesTokens
from gateway.identity.oidc import OidcTokens
from gateway.identity.proxy import ProxyAuthenticator
from gateway.identity.tokens import TokenAuthenticator
from gateway.ingestion.worker import Worker
from gateway.management.routes import inspection_routes, probe_routes
from gateway.management.service import ManagementService
from gateway.messages.routes import message_routes
from gateway.messages.service import COUNT_TOKENS, MESSAGES
from gateway.metering import Metering
from gateway.models.routes import model_routes
from gateway.models.service import ModelService
from gateway.observability.exporters import build_tracing, load_exporters, resource_for
from gateway.observability.metrics import Metrics
from gateway.observability.otlp_metrics import MetricsPusher
from gateway.observability.telemetry import Telemetry
from gateway.observability.tracing import Tracing
from gateway.ports import (
    BackendSource,
    ContentDetector,
    CounterStore,
    DocumentConverter,
    JobQueue,
    ModelServer,
    ObjectStore,
    TokenReviewer,
    TokenVerifier,
    VectorIndex,
)
from gateway.profile import profile_of
from gateway.relay.client import ModelClient
from gateway.relay.operation import Operation
from gateway.relay.recording import Recorder
from gateway.relay.relay import Relay
from gateway.rerank.routes import rerank_routes
from gateway.rerank.service import INFERENCE_RERANK, RERANK
from gateway.routing.catalog import Catalog
from gateway.routing.discovery import Discovery
from gateway.settings import BackendSettings, ModelSettings, Settings, VectorSettings
from gateway.state import State
from gateway.stateful import Stateful
from gateway.tokenize.routes import tokenize_routes
from gateway.tokenize.service import DETOKENIZE, TOKENIZE
from gateway.tools.outside import Outside


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
            settings,
            self.catalog,
            self._model_server,
            observer=self.metrics.routing,
            sources=_sources(settings),
        )
        self.state = _state(settings)
        self.metering = Metering(
            settings,
            self.state.database,
            _counters(settings, self.state.database),
            self.catalog,
            self.metrics,
        )
        self.telemetry.meter = self.metering
        self.client = ModelClient(self.catalog)
        self.embedder = Embedder(self.catalog, self.client, settings.embedding)
        self.stateful = Stateful(
            settings,
            self.state,
            self._profile,
            self.catalog,
            self.client,
            self.embedder,
            self.telemetry,
        )
        self.agentic = Agentic(
            settings,
            self.state,
            self._profile,
            self.catalog,
            self.client,
            self.telemetry,
            self.stateful,
            _outside(settings),
            _detectors(settings),
            self.metering.limiter,
        )
        service = ManagementService(self.discovery, self._profile, self.state)
        probes = probe_routes(service, self.metrics)
        separate = settings.server.management_port is not None
        self.handlers = [*self._api_routes(service), *([] if separate else probes)]
        check_that_routes_have_scopes(path for one in self.handlers for path in one.paths)
        self.litestar = router_of(self.handlers, lifespan=[self._lifespan])
        self.authenticator = _authenticator(settings, self.state.database)
        relays = relays_by_path(self.handlers)
        gate = Gate(self.authenticator, relays) if self.authenticator is not None else None
        self.public = Edge(
            cast("ASGIApp", self.litestar),
            self.telemetry,
            relays,
            gate,
            recording=self.metering.recording,
        )
        self.management = (
            Edge(cast("ASGIApp", router_of(probes)), self.telemetry, relays={})
            if separate
            else None
        )

    def around(self, surroundings: AbstractAsyncContextManager[None]) -> None:
        """Enter this before the first request is taken, and leave it after the last."""
        self._surroundings = surroundings

    def reconfigure(self, settings: Settings) -> None:
        """Take over what a running process can: the models, their servers and the routing.

        Requests in progress end where they are. Raises ``SettingsError``, and then nothing has
        changed.
        """
        self.discovery.configure(
            settings.models,
            settings.discover,
            interval=settings.discover_interval_seconds,
            routing=settings.routing,
        )

    def drain(self) -> None:
        """Say from now on that this process is unready, since it ends. It serves on."""
        self.state.draining = True

    async def retire(self) -> None:
        """Hand the work that others can do to them, now rather than when all streams are over."""
        if not self.state.database.is_sqlite:  # nobody else works on that
            await self.state.retire()

    def _api_routes(self, service: ManagementService) -> list[HTTPRouteHandler]:
        relay = self._relay
        return [
            *chat_routes(relay(CHAT, self.agentic.completion_recorder)),
            *completion_routes(relay(COMPLETION)),
            *embedding_routes(relay(EMBEDDINGS)),
            *rerank_routes(relay(RERANK), relay(INFERENCE_RERANK)),
            *tokenize_routes(relay(TOKENIZE), relay(DETOKENIZE)),
            *message_routes(relay(MESSAGES), relay(COUNT_TOKENS)),
            *model_routes(ModelService(self.catalog, self._profile)),
            *inspection_routes(service),
            *self.stateful.routes(),
            *self.agentic.routes(),
            *self.metering.routes(),
        ]

    def _relay(self, operation: Operation[Any], recorder: Recorder | None = None) -> Relay:
        return Relay(
            operation,
            self.catalog,
            max_body_bytes=self.settings.limits.max_body_bytes,
            capture_content=self.tracing.captures_content,
            recorder=recorder,
            admission=self.metering.admission,
        )

    def _model_server(self, backend: BackendSettings) -> ModelServer:
        return VllmServer(
            backend,
            timeouts=self.settings.timeouts,
            limits=self.settings.limits,
            heartbeat=self.settings.server.heartbeat_seconds,
            changed=self.metrics.connections_changed,
        )

    def _work(self) -> Callable[[], Awaitable[None]] | None:
        """The worker's loop, where the server does that work itself."""
        return self._worker().run if self.settings.ingestion.embedded_worker else None

    def _worker(self) -> Worker:
        return self.stateful.worker(
            self.agentic.work(), {**self.agentic.chores(), **self.metering.chores()}
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The time in which ``understudy worker`` works; it has everything but the API."""
        async with self._running(self._worker().run):
            yield

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        known = nullcontext() if self.authenticator is None else self.authenticator.running()
        async with self._running(self._work()), known:
            yield

    @asynccontextmanager
    async def _running(self, work: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
        self._pusher.start()
        try:
            async with (
                self.discovery.running(),
                self.state.running(work, within=self.metering.running()),
                self.stateful.running(),
                self.agentic.running(),
                self._surroundings,
            ):
                yield
        finally:
            self._pusher.shutdown()
            self.tracing.shutdown()


def create_app(settings: Settings, tracing: Tracing | None = None) -> Application:
    """The gateway for these settings; ``tracing`` in place of what the environment asks for."""
    return Application(settings, tracing)


def _authenticator(settings: Settings, database: Database) -> Authenticator | None:
    """``None`` where nobody is asked."""
    identity = settings.identity
    prover: Prover
    match identity.mode:
        case "none":
            return None
        case "upstream_header":
            return ProxyAuthenticator(identity.upstream_header)
        case "api_keys":
            prover = ApiKeys(database, identity.api_keys)
        case "oidc":
            prover = OidcTokens(_verifier(settings), identity.oidc)
        case "kubernetes":
            prover = KubernetesTokens(_reviewer(settings), identity.kubernetes)
    return TokenAuthenticator(prover, entries=identity.cache_entries)


def _verifier(settings: Settings) -> TokenVerifier:
    from adapters.oidc import OidcVerifier

    return OidcVerifier(settings.identity.oidc)


def _reviewer(settings: Settings) -> TokenReviewer:
    from adapters.kubernetes.token_review import TokenReviews

    return TokenReviews(settings.identity.kubernetes)


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


def _sources(settings: Settings) -> list[BackendSource]:
    """What tells of models beside the configuration."""
    if not settings.kserve.enabled:
        return []
    from adapters.kubernetes import KServe

    return [KServe(settings.kserve)]


def _counters(settings: Settings, database: Database) -> CounterStore:
    from adapters.counters import counters_for

    return counters_for(settings.limits.store, database)


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


def _detectors(settings: Settings) -> dict[str, ContentDetector]:
    """By their names."""
    if not settings.moderation.detectors:
        return {}
    from adapters.detectors import ContentsDetector

    return {one.name: ContentsDetector(one) for one in settings.moderation.detectors}


def _converter(settings: Settings) -> DocumentConverter:
    from adapters.docling import converter_for

    return converter_for(settings.documents, settings.ingestion)


def _outside(settings: Settings) -> Outside:
    from adapters.mcp import McpServer
    from adapters.web import HttpFetcher, search_for

    return Outside(
        servers=McpServer(settings.tools),
        fetcher=HttpFetcher(settings.urls),
        search=search_for(settings.web_search),
    )


def queue_of(settings: Settings, database: Database) -> JobQueue:
    """The queue in this database; ``understudy db`` makes its tables too."""
    if database.is_sqlite:
        from adapters.sqlite import SqliteQueue

        return SqliteQueue(database, lease_seconds=settings.ingestion.lease_seconds)
    from adapters.procrastinate import ProcrastinateQueue

    return ProcrastinateQueue(database, lease_seconds=settings.ingestion.lease_seconds)


def systems_of(settings: Settings) -> Systems:
    """The same systems for ``understudy check``, each made when it is looked at."""
    data_dir = Path(settings.data_dir).absolute()

    def index(vectors: VectorSettings) -> VectorIndex:
        return _vector_index(replace(settings, vectors=vectors), data_dir)

    def index_is_taken(folder: Path) -> bool:
        from adapters.milvus import is_taken

        return is_taken(folder)

    async def kserve() -> list[KServeNamespace]:
        from adapters.kubernetes import KServe

        return [
            KServeNamespace(
                namespace=one.namespace,
                services=one.services,
                models=[
                    ModelSettings(id=served.model, backends=[served.backend], kind=served.kind)
                    for served in one.served
                ],
                problem=one.problem,
                status=one.status,
            )
            for one in await KServe(settings.kserve).look()
        ]

    return Systems(
        settings=settings,
        data_dir=data_dir,
        model_server=lambda backend: VllmServer(
            backend, timeouts=settings.timeouts, limits=settings.limits
        ),
        database=lambda: Database(settings.database, data_dir),
        counters=lambda: _counters(settings, Database(settings.database, data_dir)),
        objects=lambda: _object_store(settings, data_dir),
        index=index,
        index_is_taken=index_is_taken,
        converter=lambda: _converter(settings),
        search=lambda: _outside(settings).search,
        tool_servers=lambda: _outside(settings).servers,
        detectors=lambda: _detectors(settings),
        kserve=kserve,
        verifier=lambda: _verifier(settings),
        reviewer=lambda: _reviewer(settings),
    )
