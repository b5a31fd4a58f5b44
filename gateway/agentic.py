"""The agent half, put together: conversations, prompts, responses, batches, moderation, tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.batches.answers import AnswerWriter
from gateway.batches.claims import BatchClaims
from gateway.batches.executor import LineExecutor, ModelExecutor
from gateway.batches.output import BatchFiles
from gateway.batches.routes import batch_routes
from gateway.batches.runner import BatchRunner
from gateway.batches.service import BatchService
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

_CANCELLATIONS_AT_ONCE = 2


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
        self._batch_lines: LineExecutor = ModelExecutor(client)
        self.batches = BatchService(
            state.database,
            state.queue,
            stateful.files,
            settings.batches,
            self._batch_lines.endpoints,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        yield

    def routes(self) -> list[HTTPRouteHandler]:
        return [*batch_routes(self.batches)]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        return [*self._batch_work()]

    def _batch_work(self) -> list[Work]:
        """Cancelling has turns of its own, so that it doesn't wait for long batches."""
        settings, files = self._settings, self._stateful.files
        longest_line = settings.limits.max_body_bytes
        claims = BatchClaims(self._state.database)
        answers = AnswerWriter(body_as_text=self._profile.batch_body_as_text)
        runner = BatchRunner(
            claims,
            BatchFiles(claims, files, self._state.objects, answers, longest_line=longest_line),
            self._batch_lines,
            catalog=self._catalog,
            answers=answers,
            telemetry=self._telemetry,
            settings=settings.batches,
            longest_line=longest_line,
        )
        return [
            Work(handlers={"run_batch": runner.run}, at_once=settings.batches.workers),
            Work(handlers={"cancel_batch": runner.cancel}, at_once=_CANCELLATIONS_AT_ONCE),
        ]

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {
            "find forgotten batches": self.batches.remind,
            "remove the lines of old batches": self.batches.forget_lines,
        }
