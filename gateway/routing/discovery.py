"""Finding out, again and again, which models run where."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from msgspec import Struct, field

from gateway.errors import GatewayError
from gateway.ports import ModelServer, ServedModel, ServerKind
from gateway.routing.catalog import Backend, Catalog, Model
from gateway.routing.guard_names import guard_form
from gateway.settings import BackendSettings, ModelKind, ModelSettings, Settings, backend_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Discovery", "ServerState"]

logger = logging.getLogger(__name__)

FIRST_ROUND_SECONDS = 3.0

RETRY_SECONDS = 2.0
"""How soon a server that didn't answer is asked again."""

ServerFactory = Callable[[BackendSettings], ModelServer]


class ServerState(Struct, kw_only=True, eq=False):
    """What is known of one server. ``up`` is ``None`` until it was asked once."""

    server: ModelServer
    provider_id: str
    discovered: bool
    """Whether its models are offered under their own names, or only where ``models`` says."""
    up: bool | None = None
    message: str = "not asked yet"
    models: Sequence[ServedModel] = ()
    kind: ServerKind | None = None
    dimensions: dict[str, int] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Discovery:
    """Keeps the catalog in step with the servers.

    Every server is asked on its own, so that one that hangs holds up no other. A server that is
    down keeps the models it had: calls to them say that it is unavailable, which is truer than
    saying that they don't exist.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        make_server: ServerFactory,
        *,
        answered: Callable[[ModelServer, bool], None] = lambda *_: None,
    ) -> None:
        self._catalog = catalog
        self._interval = settings.discover_interval_seconds
        self._answered = answered
        self._models = settings.models
        self._known: dict[str, Model] = {}
        self._servers: dict[BackendSettings, ServerState] = {}
        for entry in settings.discover:
            self._add(backend_of(entry), make_server, discovered=True)
        for model in settings.models:
            for backend in model.backends:
                self._add(backend, make_server, discovered=False)
        self._rebuild()

    @property
    def servers(self) -> list[ServerState]:
        return list(self._servers.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask every server, wait a little for the answers, and go on until the end.

        The wait is for requests that come right after the start: they should find the models of
        servers that are up. One that is down doesn't hold the start up.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch(state)) for state in self._servers.values()]
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_ROUND_SECONDS):
                        for state in self._servers.values():
                            await state.asked.wait()
                yield
            finally:
                for task in tasks:
                    task.cancel()
        for state in self._servers.values():
            await state.server.aclose()

    async def refresh(self, state: ServerState) -> None:
        """Ask one server what it runs. Never raises for what the server does wrong."""
        server = state.server
        try:
            models = await server.list_models()
            names = {model.name for model in models}
            if state.kind is None or names != {model.name for model in state.models}:
                state.kind = await server.find_kind()
            state.dimensions = {
                name: size for name, size in state.dimensions.items() if name in names
            }
        except (GatewayError, httpx.HTTPError) as error:
            self._note(state, up=False, message=str(error) or type(error).__name__)
            return
        state.models = models
        await self._find_dimensions(state, names)
        self._note(state, up=True, message=f"serves {', '.join(sorted(names)) or 'no model'}")
        self._rebuild()

    async def _find_dimensions(self, state: ServerState, names: set[str]) -> None:
        """Ask embedding models for what isn't known yet; one that can't say is asked again."""
        if state.kind != "embedding":
            return
        for name in names - state.dimensions.keys():
            try:
                state.dimensions[name] = await state.server.embedding_dimension(name)
            except (GatewayError, httpx.HTTPError) as error:
                logger.warning("%s: no dimension of %s: %s", state.server.name, name, error)

    async def _watch(self, state: ServerState) -> None:
        while True:
            try:
                await self.refresh(state)
            except Exception:  # one server's oddity must not end the others' discovery
                logger.exception("%s: discovery failed; it goes on", state.server.name)
                state.up = False
            state.asked.set()
            await asyncio.sleep(self._interval if state.up else min(RETRY_SECONDS, self._interval))

    def _note(self, state: ServerState, *, up: bool, message: str) -> None:
        if state.up is not up or (up and state.message != message):
            level = logging.INFO if up else logging.WARNING
            logger.log(level, "%s: %s", state.server.name, message)
        state.up = up
        state.message = message
        self._answered(state.server, up)

    def _add(
        self, backend: BackendSettings, make_server: ServerFactory, *, discovered: bool
    ) -> None:
        key = _identity(backend)
        if key not in self._servers:
            server = make_server(backend)
            number = len(self._servers) + 1
            self._servers[key] = ServerState(
                server=server,
                provider_id=server.provider if number == 1 else f"{server.provider}-{number}",
                discovered=discovered,
            )

    def _rebuild(self) -> None:
        """The catalog anew: the configured models first, then what was discovered."""
        models = [self._configured(model) for model in self._models]
        names = {name for model in models for name in (model.id, *model.aliases)}
        found: dict[str, list[tuple[ServerState, ServedModel]]] = {}
        for state in self._servers.values():
            if state.discovered:
                for served in state.models:
                    if served.name not in names:
                        found.setdefault(served.name, []).append((state, served))
        models += [self._found(name, places) for name, places in found.items()]
        self._known = {model.id: model for model in models}
        asked = [state for state in self._servers.values() if state.discovered]
        self._catalog.replace(models, complete=all(state.kind is not None for state in asked))

    def _configured(self, model: ModelSettings) -> Model:
        backends, providers = [], []
        kind, dimension, context_length = model.kind, None, None
        for settings in model.backends:
            state = self._servers[_identity(settings)]
            name = settings.model or model.id
            providers.append(state.provider_id)
            backends.append(
                Backend(
                    server=state.server,
                    model=name,
                    weight=settings.weight,
                    priority=settings.priority,
                )
            )
            kind = kind or _kind(state, model.id, name)
            dimension = dimension or state.dimensions.get(name)
            context_length = context_length or _context_length(state, name)
        return self._model(
            Model(
                id=model.id,
                backends=backends,
                kind=kind,
                aliases=model.aliases,
                providers=providers,
                dimension=dimension,
                context_length=context_length,
            )
        )

    def _found(self, name: str, places: list[tuple[ServerState, ServedModel]]) -> Model:
        first, served = places[0]
        return self._model(
            Model(
                id=name,
                backends=[Backend(server=state.server, model=name) for state, _ in places],
                kind=_kind(first, name),
                providers=[state.provider_id for state, _ in places],
                dimension=first.dimensions.get(name),
                context_length=served.context_length,
            )
        )

    def _model(self, model: Model) -> Model:
        """The model, with the time at which it was first seen."""
        if (known := self._known.get(model.id)) is not None:
            model.created = known.created
        return model


def _identity(backend: BackendSettings) -> BackendSettings:
    """What makes two backends the same server: all but what concerns one model there."""
    return BackendSettings(
        url=backend.url.rstrip("/").removesuffix("/v1"),
        api_key=backend.api_key,
        api_key_file=backend.api_key_file,
        ca_file=backend.ca_file,
        client_cert=backend.client_cert,
        client_key=backend.client_key,
        forward_headers=backend.forward_headers,
        timeouts=backend.timeouts,
    )


def _kind(state: ServerState, *names: str) -> ModelKind | None:
    """What a model with these names is for: a server that chats may run a guard."""
    if state.kind == "chat" and any(guard_form(name) for name in names):
        return "moderation"
    return state.kind


def _context_length(state: ServerState, name: str) -> int | None:
    return next((model.context_length for model in state.models if model.name == name), None)
