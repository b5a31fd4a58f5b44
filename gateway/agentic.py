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
    ) -> None:
        self._settings = settings
        self._state = state
        self._profile = profile
        self._catalog = catalog
        self._client = client
        self._telemetry = telemetry
        self._stateful = stateful

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        yield

    def routes(self) -> list[HTTPRouteHandler]:
        return []

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        return []

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {}
