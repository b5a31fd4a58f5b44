"""Finding out, again and again, which models run where."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from gateway.errors import GatewayError, UpstreamTimeout
from gateway.ports import BackendSource, ModelServer
from gateway.routing.addresses import Addresses
from gateway.routing.assembly import Assembly
from gateway.routing.catalog import Catalog
from gateway.routing.observer import Observer
from gateway.routing.prober import Prober
from gateway.routing.server_state import ServerState, identity_of
from gateway.settings import (
    BackendSettings,
    ModelSettings,
    RoutingSettings,
    Settings,
    SettingsError,
    backend_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Discovery", "ServerState"]

logger = logging.getLogger(__name__)

FIRST_ROUND_SECONDS = 3.0

RETRY_SECONDS = 2.0
"""How soon a server that didn't answer is asked again."""

SOURCE_RETRY_SECONDS = 5.0
"""How soon a source that failed is watched again."""

DRAIN_LOOK_SECONDS = 0.1
"""How often a server that isn't used any more is looked at for requests that still run there."""

ServerFactory = Callable[[BackendSettings], ModelServer]


class Discovery:
    """Keeps the catalog in step with the servers.

    Every server is asked on its own, so that one that hangs holds up no other. A server that is
    down keeps the models it had: calls to them say that it is unavailable, which is truer than
    saying that they don't exist.

    Which servers there are comes from the configuration, which :meth:`configure` replaces, and
    from ``sources``. A server that is named no more finishes the requests it has and is closed.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        make_server: ServerFactory,
        *,
        observer: Observer | None = None,
        sources: Sequence[BackendSource] = (),
    ) -> None:
        self._catalog = catalog
        self._make_server = make_server
        self._observer = observer or Observer()
        self._sources = sources
        self._assembly = Assembly(self._observer)
        self._prober = Prober(catalog, self._observer)
        self._routing = settings.routing
        self._interval = settings.discover_interval_seconds
        self._models: Sequence[ModelSettings] = settings.models
        self._discover: Sequence[BackendSettings] = [backend_of(one) for one in settings.discover]
        self._offered: dict[str, Sequence[ModelSettings]] = {}
        self._servers: dict[BackendSettings, ServerState] = {}
        self._watchers: dict[BackendSettings, asyncio.Task[None]] = {}
        self._heard = {source.name: asyncio.Event() for source in sources}
        self._group: asyncio.TaskGroup | None = None
        self._draining: dict[ModelServer, asyncio.Task[None]] = {}
        self._addresses = Addresses()
        self._take(self._models, self._discover, self._offered)

    @property
    def servers(self) -> list[ServerState]:
        return list(self._servers.values())

    @property
    def draining(self) -> int:
        """How many servers are used no more and still have requests."""
        return len(self._draining)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask every source and server, wait a little for the answers, and go on until the end.

        The wait is for requests that come right after the start: they should find the models of
        servers that are up. One that is down doesn't hold the start up.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ROUND_SECONDS):
                if await self._addresses.refresh():
                    self._take(self._models, self._discover, self._offered)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for key in self._servers:
                self._begin(key)
            tasks = [group.create_task(self._follow(source)) for source in self._sources]
            tasks.append(group.create_task(self._prober.run()))
            tasks.append(group.create_task(self._resolve()))
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_ROUND_SECONDS):
                        for heard in self._heard.values():
                            await heard.wait()
                        for state in list(self._servers.values()):
                            await state.asked.wait()
                yield
            finally:
                self._group = None
                for task in (*tasks, *self._watchers.values(), *self._draining.values()):
                    task.cancel()
        for server in (*self._draining, *(state.server for state in self._servers.values())):
            await server.aclose()

    def configure(
        self,
        models: Sequence[ModelSettings],
        discover: Iterable[str | BackendSettings],
        *,
        interval: float | None = None,
        routing: RoutingSettings | None = None,
    ) -> None:
        """From now on, these in place of what was configured before; what sources said stays.

        Servers that stay keep their connections. Raises ``SettingsError`` when a server can't be
        made of its settings, and then nothing has changed.
        """
        servers = [backend_of(one) for one in discover]
        before = self._routing
        self._routing = routing or before
        try:
            self._take(models, servers, self._offered)
        except SettingsError:
            self._routing = before
            raise
        self._models, self._discover = models, servers
        if interval is not None:
            self._interval = interval

    def offer(self, source: str, models: Sequence[ModelSettings]) -> None:
        """From now on the source of this name has these models, in place of those it had.

        A model without backends is left out. Where the configuration has a name too, its model is
        taken. Raises ``SettingsError`` as :meth:`configure` does.
        """
        offered = self._offered | {source: [model for model in models if model.backends]}
        self._take(self._models, self._discover, offered)
        self._offered = offered

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
            unreachable = isinstance(error, GatewayError) and error.nothing_sent
            state.load.down = unreachable or isinstance(error, UpstreamTimeout)
            self._note(state, up=False, message=str(error) or type(error).__name__)
            return
        state.load.down = False
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

    async def _follow(self, source: BackendSource) -> None:
        """Take over what a source says, for as long as the gateway runs."""
        while True:
            try:
                async for models in source.watch():
                    try:
                        self.offer(source.name, models)
                    except SettingsError as error:
                        # Its words say all there is to say.
                        logger.error("%s: %s; what it said before stays", source.name, error)  # noqa: TRY400
                    self._heard[source.name].set()
            except Exception:  # a source's failure must not end the servers' discovery
                logger.exception("%s: watching failed; it goes on", source.name)
            await asyncio.sleep(SOURCE_RETRY_SECONDS)

    async def _resolve(self) -> None:
        """Look up the hosts whose addresses are backends each, as often as servers are asked."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._addresses.asked.wait()
            if await self._addresses.refresh():
                try:
                    self._take(self._models, self._discover, self._offered)
                except SettingsError as error:
                    logger.error("New addresses can't be used: %s", error)  # noqa: TRY400  (its words say all)

    def _note(self, state: ServerState, *, up: bool, message: str) -> None:
        if state.up is not up or (up and state.message != message):
            level = logging.INFO if up else logging.WARNING
            logger.log(level, "%s: %s", state.server.name, message)
        state.up = up
        state.message = message
        self._observer.answered(state.server, up=up)

    def _take(
        self,
        models: Sequence[ModelSettings],
        discover: Sequence[BackendSettings],
        offered: dict[str, Sequence[ModelSettings]],
    ) -> None:
        """Have exactly the servers that these name, and the catalog anew."""
        named = [*models, *itertools.chain.from_iterable(offered.values())]
        every = self._addresses.models(named)
        wanted: dict[BackendSettings, tuple[BackendSettings, bool]] = {}
        for backend in self._addresses.backends(discover):
            wanted.setdefault(identity_of(backend), (backend, True))
        for model in every:
            for backend in model.backends:
                wanted.setdefault(identity_of(backend), (backend, False))
        made = self._made(wanted)
        gone = self._servers.keys() - wanted.keys()
        dropped = [self._drop(key) for key in gone]
        servers = {}
        for key, (_, discovered) in wanted.items():
            if key in made:
                server = made[key]
                self._servers[key] = ServerState(
                    server=server, provider_id=self._free_id(server.provider), discovered=discovered
                )
            servers[key] = self._servers[key]
            servers[key].discovered = discovered
        self._servers = servers  # in the order of the settings
        for key in made:
            self._begin(key)
        self._rebuild(named)
        self._addresses.wants(discover, named)
        for state in dropped:
            self._retire(state)

    def _made(
        self, wanted: dict[BackendSettings, tuple[BackendSettings, bool]]
    ) -> dict[BackendSettings, ModelServer]:
        """The servers that aren't there yet: all of them, or ``SettingsError``."""
        return {
            key: self._make_server(backend)
            for key, (backend, _) in wanted.items()
            if key not in self._servers
        }

    def _free_id(self, provider: str) -> str:
        taken = {state.provider_id for state in self._servers.values()}
        names = (provider if n == 1 else f"{provider}-{n}" for n in itertools.count(1))
        return next(name for name in names if name not in taken)

    def _begin(self, key: BackendSettings) -> None:
        """Ask a server from now on, where the gateway runs already."""
        if self._group is not None:
            self._watchers[key] = self._group.create_task(self._watch(self._servers[key]))

    def _drop(self, key: BackendSettings) -> ServerState:
        if (watcher := self._watchers.pop(key, None)) is not None:
            watcher.cancel()
        return self._servers.pop(key)

    def _retire(self, state: ServerState) -> None:
        """Nothing names it any more: let it finish what it has."""
        logger.info("%s: not used any more", state.server.name)
        if self._group is not None:
            self._draining[state.server] = self._group.create_task(self._drain(state))

    async def _drain(self, state: ServerState) -> None:
        """Close a server when it has no request left. Each one ends by its own time limits."""
        server = state.server
        await asyncio.sleep(DRAIN_LOOK_SECONDS)  # who has just chosen it has not begun yet
        while state.load.in_flight or server.busy_connections:  # noqa: ASYNC110  (counts as it is, in a hot path)
            await asyncio.sleep(DRAIN_LOOK_SECONDS)
        await server.aclose()
        address = (server.host, server.port)
        if address not in {(one.server.host, one.server.port) for one in self.servers}:
            self._observer.gone(server)
        del self._draining[server]

    def _rebuild(self, configured: Sequence[ModelSettings] | None = None) -> None:
        if configured is None:
            configured = [*self._models, *itertools.chain.from_iterable(self._offered.values())]
        models = self._assembly.build(
            self._addresses.models(configured), self._servers, self._routing
        )
        asked = [state for state in self._servers.values() if state.discovered]
        self._catalog.replace(models, complete=all(state.kind is not None for state in asked))
