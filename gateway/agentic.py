"""The agent half, put together: conversations, prompts, responses, batches, moderation, tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.conversations.routes import conversation_routes
from gateway.conversations.service import ConversationService
from gateway.ingestion.reaper import Chore
from gateway.ingestion.worker import Work
from gateway.observability.telemetry import Telemetry
from gateway.profile import Profile
from gateway.prompts.routes import prompt_routes
from gateway.prompts.service import PromptService
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog
from gateway.settings import Settings
from gateway.state import State
from gateway.stateful import Stateful
from gateway.stored_completions.recorder import CompletionRecorder
from gateway.stored_completions.routes import stored_completion_routes
from gateway.stored_completions.service import StoredCompletionService
from gateway.stored_completions.writer import CompletionWriter

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
        self.conversations = ConversationService(state.database, profile)
        self.prompts = PromptService(state.database)
        self.stored_completions = StoredCompletionService(
            state.database, profile, settings.retention
        )
        self._completion_writer = CompletionWriter(state.database, telemetry.metrics)
        self.completion_recorder = CompletionRecorder(
            self._completion_writer, unasked=profile.stores_completions
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with self._completion_writer.running():
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        return [
            *conversation_routes(self.conversations, self._settings.limits.max_body_bytes),
            *prompt_routes(self.prompts),
            *stored_completion_routes(self.stored_completions, self._profile.completions_order),
        ]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        return []

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {"expire chat completions": self.stored_completions.delete_expired}
