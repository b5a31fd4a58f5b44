"""The one composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from adapters.vllm import VllmServer
from gateway.chat.routes import chat_routes
from gateway.chat.service import CHAT
from gateway.completions.routes import completion_routes
from gateway.completions.service import COMPLETION
from gateway.embeddings.routes import embedding_routes
from gateway.embeddings.service import EMBEDDINGS
from gateway.errors import GatewayError, MethodNotAllowed, NotFound, error_for_status
from gateway.http.asgi import ASGIApp
from gateway.http.edge import Edge
from gateway.http.relayed import relays_by_path
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
from gateway.ports import ModelServer
from gateway.profile import profile_of
from gateway.relay.operation import Operation
from gateway.relay.relay import Relay
from gateway.rerank.routes import rerank_routes
from gateway.rerank.service import INFERENCE_RERANK, RERANK
from gateway.routing.catalog import Catalog
from gateway.routing.discovery import Discovery
from gateway.settings import BackendSettings, Settings
from gateway.tokenize.routes import tokenize_routes
from gateway.tokenize.service import DETOKENIZE, TOKENIZE


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
        service = ManagementService(self.discovery, self._profile)
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
        ]

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

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        self._pusher.start()
        try:
            async with self.discovery.running(), self._surroundings:
                yield
        finally:
            self._pusher.shutdown()
            self.tracing.shutdown()


def create_app(settings: Settings, tracing: Tracing | None = None) -> Application:
    """The gateway for these settings; ``tracing`` in place of what the environment asks for."""
    return Application(settings, tracing)


def _litestar(handlers: list[HTTPRouteHandler], lifespan: list[Any] | None = None) -> Litestar:
    return Litestar(
        handlers,
        lifespan=lifespan or [],
        exception_handlers={
            GatewayError: _answer_error,
            HTTPException: _answer_http_exception,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )


def _answer_error(_: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
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
        shown = error_for_status(error.status_code)(error.detail, param=_param(error))
    response = _answer_error(request, shown)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _param(error: HTTPException) -> str | None:
    """The parameter that a validation error is about."""
    if isinstance(error.extra, list) and error.extra and isinstance(error.extra[0], dict):
        return error.extra[0].get("key")
    return None
