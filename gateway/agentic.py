"""The agent half, put together: conversations, prompts, responses, batches, moderation, tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from litestar.handlers import HTTPRouteHandler

from gateway.batches.answers import AnswerWriter
from gateway.batches.claims import BatchClaims
from gateway.batches.executor import LineExecutor, ModelExecutor
from gateway.batches.output import BatchFiles
from gateway.batches.routes import batch_routes
from gateway.batches.runner import BatchRunner
from gateway.batches.service import BatchService
from gateway.conversations.routes import conversation_routes
from gateway.conversations.service import ConversationService
from gateway.ingestion.reaper import Chore
from gateway.ingestion.worker import Work
from gateway.limits.limiter import Limiter
from gateway.moderations.guards import Guards
from gateway.moderations.routes import moderation_routes
from gateway.moderations.service import ModerationService
from gateway.observability.telemetry import Telemetry
from gateway.ports import ContentDetector
from gateway.profile import Profile
from gateway.prompts.routes import prompt_routes
from gateway.prompts.service import PromptService
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
from gateway.stored_completions.recorder import CompletionRecorder
from gateway.stored_completions.routes import stored_completion_routes
from gateway.stored_completions.service import StoredCompletionService
from gateway.stored_completions.writer import CompletionWriter
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

_CANCELLATIONS_AT_ONCE = 2


class Agentic:
    """Services on top of files, vector stores and models.

    ``outside`` is what lies beyond the platform: servers of tools, the web. ``detectors`` judge
    content, by their names.
    """

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
        detectors: Mapping[str, ContentDetector],
        limiter: Limiter,
    ) -> None:
        self._settings = settings
        self._state = state
        self._profile = profile
        self._catalog = catalog
        self._client = client
        self._telemetry = telemetry
        self._stateful = stateful
        self._outside = outside
        self._detectors = detectors
        self._limiter = limiter
        database = state.database
        guards = Guards(catalog, client, settings.moderation, detectors)
        self.moderations = ModerationService(guards)
        self.shields = ShieldService(database, guards, profile)
        self.conversations = ConversationService(database, profile)
        self.prompts = PromptService(database)
        self.stored_completions = StoredCompletionService(database, profile, settings.retention)
        self._completion_writer = CompletionWriter(database, telemetry.metrics)
        self.completion_recorder = CompletionRecorder(
            self._completion_writer, unasked=profile.stores_completions
        )
        self._policy = UrlPolicy(settings.tools.allowed_hosts, "tools.allowed_hosts")
        self.tools = ToolService(
            outside.servers,
            ConnectorRegistry(settings.tools.connectors),
            self._policy,
            telemetry.metrics,
        )
        self._preparation = self._prepares()
        self._performer = self._performs()
        self._private = PrivateRequests(database, state.queue, at_once=settings.responses.workers)
        self.responses = ResponseService(
            database, self._preparation, self._performer, profile, settings.responses
        )
        self._response_worker = self._works_on_responses()
        self._batch_lines: LineExecutor = ModelExecutor(client, self.responses.create)
        self.batches = BatchService(
            database,
            state.queue,
            stateful.files,
            settings.batches,
            self._batch_lines.endpoints,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are taken and work is done."""
        async with AsyncExitStack() as stack:
            for detector in self._detectors.values():
                stack.push_async_callback(detector.aclose)
            await stack.enter_async_context(self._outside.open())
            await stack.enter_async_context(self._completion_writer.running())
            await stack.enter_async_context(self._private.worked_on(self._response_worker.work))
            yield

    def routes(self) -> list[HTTPRouteHandler]:
        limit = self._settings.limits.max_body_bytes
        return [
            *self._response_routes(),
            *conversation_routes(self.conversations, limit),
            *prompt_routes(self.prompts),
            *stored_completion_routes(self.stored_completions, self._profile.completions_order),
            *batch_routes(self.batches),
            *moderation_routes(self.moderations, limit),
            *shield_routes(self.shields, limit),
            *self._tool_routes(),
        ]

    def work(self) -> list[Work]:
        """What workers do for these slices."""
        responses = self._settings.responses
        return [
            Work(handlers=self._response_worker.handlers(), at_once=responses.workers),
            *self._batch_work(),
        ]

    def chores(self) -> dict[str, Chore]:
        """What the reaper does for them."""
        return {
            "expire chat completions": self.stored_completions.delete_expired,
            "find forgotten responses": self._response_worker.find_forgotten,
            "find forgotten batches": self.batches.remind,
            "remove the lines of old batches": self.batches.forget_lines,
        }

    # Responses.

    def _prepares(self) -> Preparation:
        most = self._settings.responses.max_context_items
        return Preparation(
            self._catalog,
            ContextReader(self._state.database, most),
            self.prompts,
            self.tools,
            searches_web=self._outside.search is not None,
        )

    def _performs(self) -> Performer:
        return Performer(
            catalog=self._catalog,
            client=self._client,
            search=self._stateful.search,
            files=self._stateful.files,
            converter=self._state.converter,
            workspace=self._stateful.workspace,
            fetcher=self._outside.fetcher,
            web=self._outside.search,
            servers=self.tools,
            shields=self.shields,
            profile=self._profile,
            settings=self._settings.responses,
        )

    def _works_on_responses(self) -> ResponseWorker:
        return ResponseWorker(
            self._state.database,
            self._state.queue,
            self._private,
            self._preparation,
            self._performer,
            self._telemetry,
        )

    def _response_routes(self) -> list[HTTPRouteHandler]:
        return response_routes(
            self.responses,
            BackgroundResponses(
                self._state.database, self._state.queue, self._private, self._profile
            ),
            CompactionService(
                self._client,
                self._preparation,
                self._performer,
                max_summary_tokens=self._settings.responses.max_summary_tokens,
            ),
            self._limiter,
            max_body_bytes=self._settings.limits.max_body_bytes,
            heartbeat=self._settings.server.heartbeat_seconds,
        )

    # Batches.

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
            turns=self._limiter,
            telemetry=self._telemetry,
            settings=settings.batches,
            longest_line=longest_line,
        )
        return [
            Work(handlers={"run_batch": runner.run}, at_once=settings.batches.workers),
            Work(handlers={"cancel_batch": runner.cancel}, at_once=_CANCELLATIONS_AT_ONCE),
        ]

    # Tools.

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
