"""The agent half, put together: conversations, prompts, responses, batches, moderation, tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.ingestion.reaper import Chore
from gateway.ingestion.worker import Work
from gateway.moderations.guards import Guards
from gateway.moderations.routes import moderation_routes
from gateway.moderations.service import ModerationService
from gateway.observability.telemetry import Telemetry
from gateway.ports import ContentDetector
from gateway.profile import Profile
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog
from gateway.settings import Settings
from gateway.shields.routes import shield_routes
from gateway.shields.service import ShieldService
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
        detectors: Mapping[str, ContentDetector],
    ) -> None:
        self._settings = settings
        self._state = state
        self._profile = profile
        self._catalog = catalog
        self._client = client
        self._telemetry = telemetry
        self._stateful = stateful
        self._detectors = detectors
        guards = Guards(catalog, client, settings.moderation, detectors)
        self.moderations = ModerationService(guards)
        self.shields = ShieldService(state.database, guards, profile)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with AsyncExitStack() as closing:
            for detector in self._detectors.values():
                closing.push_async_callback(detector.aclose)
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        limit = self._settings.limits.max_body_bytes
        return [
            *moderation_routes(self.moderations, limit),
            *shield_routes(self.shields, limit),
        ]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        return []

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {}
