"""Putting a response's loop together and running it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.files.service import FileService
from gateway.identity.principal import Principal
from gateway.ingestion.workspace import Workspace
from gateway.observability.activity import Activity
from gateway.ports import DocumentConverter, WebFetcher, WebSearch
from gateway.profile import Profile
from gateway.relay.client import ModelClient
from gateway.responses.assignment import Assignment
from gateway.responses.citations import Sources
from gateway.responses.guard import Guard
from gateway.responses.inputs import InputReader
from gateway.responses.loop import Loop, Tools
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import FileSearchTool, McpTool
from gateway.responses.tools.file_search import FileSearch
from gateway.responses.tools.mcp import McpServers
from gateway.responses.tools.web_search import WebSearches
from gateway.routing.catalog import Catalog
from gateway.settings import ResponseSettings
from gateway.shields.service import ShieldService
from gateway.tools.service import ToolService
from gateway.vector_stores.search import SearchService

__all__ = ["Performer"]

_ROOM_CHARACTERS = 60_000
"""For the results of one search, where the model's context isn't known."""

_CHARACTERS_PER_TOKEN = 3
_SHARE = 0.5
"""Of a model's context that the results of one search may take."""


async def _keep_nothing() -> None:
    """The checkpoint of a response that ends with its request."""


class Performer:
    """What every response needs; :meth:`perform` makes one."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        client: ModelClient,
        search: SearchService,
        files: FileService,
        converter: DocumentConverter,
        workspace: Workspace,
        fetcher: WebFetcher,
        web: WebSearch | None,
        servers: ToolService,
        shields: ShieldService,
        profile: Profile,
        settings: ResponseSettings,
    ) -> None:
        self._catalog = catalog
        self._client = client
        self._search = search
        self._files = files
        self._converter = converter
        self._workspace = workspace
        self._fetcher = fetcher
        self._web = web
        self._servers = servers
        self._shields = shields
        self._profile = profile
        self._settings = settings

    async def check(self, assignment: Assignment) -> None:
        """Raises ``InvalidRequest`` and ``NotFound`` for stores that can't be searched."""
        search = FileSearch(self._search, assignment.principal, Sources(), room=0)
        for place, tool in enumerate(assignment.run.request.tools or ()):
            if isinstance(tool, FileSearchTool):
                await search.check(tool, f"tools[{place}]")

    async def perform(
        self,
        assignment: Assignment,
        stream: ResponseStream,
        activity: Activity,
        checkpoint: Callable[[], Awaitable[None]] = _keep_nothing,
    ) -> None:
        """Run the loop to its end. Raises ``GatewayError`` where the response fails."""
        request = assignment.run.request
        room = self._room(request.model)
        sources = Sources()
        mcp = [tool for tool in request.tools or () if isinstance(tool, McpTool)]
        async with McpServers(self._servers, mcp) as servers:
            loop = Loop(
                assignment,
                stream,
                client=self._client,
                tools=Tools(
                    FileSearch(self._search, assignment.principal, sources, room=room),
                    WebSearches(self._web, sources, room=room),
                    servers,
                    sources,
                ),
                inputs=self.reader(assignment.principal),
                guard=self._guard(assignment),
                room=room,
                approval_is_usual=self._profile.mcp_approval,
                settings=self._settings,
                checkpoint=checkpoint,
            )
            await loop.run(activity)

    def reader(self, principal: Principal) -> InputReader:
        """What reads images and files for this caller."""
        return InputReader(principal, self._files, self._fetcher, self._converter, self._workspace)

    def _guard(self, assignment: Assignment) -> Guard | None:
        shields = assignment.run.request.shields
        if not shields:
            return None
        return Guard(self._shields, assignment.principal, shields)

    def _room(self, model: str) -> int:
        """In characters, for the results of one search."""
        length = self._catalog.get(model).context_length
        if length is None:
            return _ROOM_CHARACTERS
        return min(int(length * _SHARE * _CHARACTERS_PER_TOKEN), _ROOM_CHARACTERS)
