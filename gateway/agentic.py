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
from gateway.responses.background import BackgroundResponses
from gateway.responses.compaction import CompactionService
from gateway.responses.context import ContextReader
from gateway.responses.performance import Performer
from gateway.responses.preparation import Preparation
from gateway.responses.private import PrivateRequests
from gateway.responses.routes import response_routes
from gateway.responses.service import ResponseService
from gateway.responses.worker import ResponseWorker
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
        self._private = PrivateRequests(
            state.database, state.queue, at_once=settings.responses.workers
        )
        self._preparation = self._prepares()
        self._performer = self._performs()
        self.responses = ResponseService(
            state.database, self._preparation, self._performer, profile, settings.responses
        )
        self._response_worker = ResponseWorker(
            state.database,
            state.queue,
            self._private,
            self._preparation,
            self._performer,
            telemetry,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with AsyncExitStack() as stack:
            for detector in self._detectors.values():
                stack.push_async_callback(detector.aclose)
            await stack.enter_async_context(self._private.worked_on(self._response_worker.work))
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        limit = self._settings.limits.max_body_bytes
        return [
            *self._response_routes(),
            *moderation_routes(self.moderations, limit),
            *shield_routes(self.shields, limit),
        ]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        settings = self._settings
        return [
            Work(handlers=self._response_worker.handlers(), at_once=settings.responses.workers),
        ]

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {"find forgotten responses": self._response_worker.find_forgotten}

    def _prepares(self) -> Preparation:
        most = self._settings.responses.max_context_items
        return Preparation(
            self._catalog,
            ContextReader(self._state.database, most),
            None,
            None,
            searches_web=False,
        )

    def _performs(self) -> Performer:
        return Performer(
            catalog=self._catalog,
            client=self._client,
            search=self._stateful.search,
            files=self._stateful.files,
            converter=self._state.converter,
            workspace=self._stateful.workspace,
            fetcher=None,
            web=None,
            servers=None,
            shields=self.shields,
            profile=self._profile,
            settings=self._settings.responses,
        )

    def _response_routes(self) -> list[HTTPRouteHandler]:
        return response_routes(
            self.responses,
            BackgroundResponses(
                self._state.database, self._state.queue, self._private, self._profile
            ),
            CompactionService(self._client, self._preparation, self._performer),
            max_body_bytes=self._settings.limits.max_body_bytes,
            heartbeat=self._settings.server.heartbeat_seconds,
        )
