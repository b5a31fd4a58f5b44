"""The agent half, put together: conversations, prompts, responses, batches, moderation, tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.ingestion.reaper import Chore
from gateway.ingestion.worker import Work
from gateway.observability.telemetry import Telemetry
from gateway.profile import Profile
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog
from gateway.settings import Settings
from gateway.state import State
from gateway.stateful import Stateful
from gateway.tools.builtin import BuiltinTools, WebSearchTools
from gateway.tools.connector_routes import connector_routes
from gateway.tools.connector_service import ConnectorService
from gateway.tools.connectors import ConnectorRegistry
from gateway.tools.groups import ToolGroupService
from gateway.tools.outside import Outside
from gateway.tools.rag import RagTools
from gateway.tools.routes import rag_routes, tool_group_routes, tool_routes
from gateway.tools.runtime import ToolRuntime
from gateway.tools.service import ToolService
from gateway.urls import UrlPolicy

__all__ = ["Agentic"]


class Agentic:
    """Services on top of files, vector stores and models."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        profile: Profile,
        catalog: Catalog,
        client: ModelClient,
        telemetry: Telemetry,
        stateful: Stateful,
        outside: Outside,
    ) -> None:
        self._settings = settings
        self._state = state
        self._profile = profile
        self._catalog = catalog
        self._client = client
        self._telemetry = telemetry
        self._stateful = stateful
        self._outside = outside
        policy = UrlPolicy(settings.tools.allowed_hosts, "tools.allowed_hosts")
        connectors = ConnectorRegistry(settings.tools.connectors)
        self.tools = ToolService(outside.servers, connectors, policy, telemetry.metrics)
        self._policy = policy

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with self._outside.open():
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        return [*self._tool_routes()]

    def _tool_routes(self) -> list[HTTPRouteHandler]:
        settings, tools, search = self._settings, self.tools, self._outside.search
        stateful = self._stateful
        rag = RagTools(stateful.search, stateful.files, stateful.store_files, self._outside.fetcher)
        builtin: list[BuiltinTools] = [rag]
        if search is not None:
            wanted = settings.web_search
            builtin.append(WebSearchTools(search, wanted.kind, wanted.max_results))
        groups = ToolGroupService(
            self._state.database, tools.connectors, builtin, self._policy, self._profile
        )
        return [
            *tool_group_routes(groups),
            *tool_routes(ToolRuntime(groups, tools)),
            *rag_routes(rag, settings.limits.max_body_bytes),
            *connector_routes(ConnectorService(tools)),
        ]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        return []

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {}
