"""One session with an MCP server, in a task of its own.

The SDK's cancel scopes must be left in the task that entered them, while a response may begin in
one task and end in another. So a task owns the session from its opening to its end, and everybody
else waits for what it does; each wait has a limit, and ends at once when the session breaks.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Literal, TypeVar

import httpx2
import mcp_types as types
import pydantic
from mcp import Client, MCPError
from mcp.client import ClientSession, Transport
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from opentelemetry.context import Context, attach

from adapters.mcp.results import served_tool, tool_output
from adapters.mcp.transport import Failure, McpTransport, failure_in
from gateway import __version__
from gateway.ports import ServedTool, ToolOutput, ToolServerAddress, ToolServerFailed
from gateway.settings import ToolSettings

__all__ = ["McpSession"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_PAGES = 200
"""Of a list of tools; servers have been seen to give a new cursor for ever."""
SETTLE_SECONDS = 1.0
"""How long a call that was given up may take to say so to its server."""
_NO_SUCH_TRANSPORT = (400, 404, 405, 406, 415)
"""What a server that knows only the older transport says to a POST."""
_BROKEN_OFF = ("Connection closed", "SSE stream")
"""How the SDK begins to say so; a server's own errors have the same code."""
_CLIENT = types.Implementation(name="understudy", version=__version__)
_CONTEXT_HEADERS = ("traceparent", "tracestate", "baggage")


class McpSession:
    """Fulfils ``ToolSession``; :meth:`start` before anything else, and :meth:`close` at the end."""

    def __init__(
        self,
        address: ToolServerAddress,
        settings: ToolSettings,
        inner: httpx2.AsyncBaseTransport,
    ) -> None:
        self._settings = settings
        self._url = address.url
        self.label = address.label
        url = httpx2.URL(address.url)
        self.server_address = url.host
        self.server_port = url.port or (443 if url.scheme == "https" else 80)
        self.protocol_version: str | None = None
        self.server_name: str | None = None
        self.server_version: str | None = None
        self.instructions: str | None = None
        self.transport: str = "streamable_http"
        self._http = McpTransport(inner, address.url, address.headers, self._break)
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._broken: asyncio.Future[ToolServerFailed] = asyncio.get_running_loop().create_future()
        self._owner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"McpSession(label={self.label!r})"

    @property
    def session_id(self) -> str | None:
        return self._http.session_id

    # -- opening and closing ----------------------------------------------------------------------

    async def start(self) -> None:
        """Raises ``ToolServerFailed``."""
        self._owner = asyncio.create_task(self._own(), name="mcp-session")
        try:
            await self._wait(self._ready, self._settings.connect_seconds, "didn't open a session")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Say goodbye, for a bounded time. Never raises but for a cancellation, which waits."""
        if self._owner is None:
            return
        self._stop.set()
        closing = asyncio.create_task(self._end(self._owner), name="mcp-close")
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError as error:  # a bounded wait, then it goes on
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _end(self, owner: asyncio.Task[None]) -> None:
        if not self._ready.done() or self._ready.cancelled() or self._ready.exception():
            owner.cancel()  # nothing was opened, so there is nobody to say goodbye to
        done, _ = await asyncio.wait([owner], timeout=self._settings.close_seconds)
        if not done:
            owner.cancel()
            done, _ = await asyncio.wait([owner], timeout=SETTLE_SECONDS)
        if not done:
            logger.warning("A session with the tool server %r doesn't end", self.label)
        elif not owner.cancelled():
            owner.exception()  # seen; whoever waited was told

    async def _own(self) -> None:
        """The session's whole life. What ends it early is told by ``_broken``."""
        try:
            async with AsyncExitStack() as stack:
                client = await self._connect(stack)
                self._introduce(client)
                self._ready.set_result(client.session)
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001  (whatever the SDK raises ends this session alone)
            self._fail(self._failed(error))
        finally:
            await self._http.aclose()

    async def _connect(self, stack: AsyncExitStack) -> Client:
        """By streamable HTTP, and by the older transport where the server doesn't know it."""
        entered = AsyncExitStack()
        try:
            client = await entered.enter_async_context(self._client(self._streamable(), "auto"))
        except Exception as error:  # noqa: BLE001  (whatever the SDK raises; it is told below)
            await entered.aclose()
            first = self._failed(error)
            failure = self._http.last_failure
            if failure is None or not failure.foreign or failure.status not in _NO_SUCH_TRANSPORT:
                raise first from None
            self.transport = "sse"
            self._http.answers_elsewhere = True
            try:
                client = await entered.enter_async_context(self._client(self._sse(), "legacy"))
            except Exception as second:  # noqa: BLE001  (the same)
                await entered.aclose()
                found = self._http.last_failure
                if found is not None and found.status in _NO_SUCH_TRANSPORT:
                    raise first from None  # it doesn't know that one either
                raise self._failed(second) from None
        stack.push_async_exit(entered)
        return client

    def _client(self, transport: Transport, mode: Literal["auto", "legacy"]) -> Client:
        return Client(transport, mode=mode, client_info=_CLIENT, cache=None)

    @asynccontextmanager
    async def _streamable(self) -> AsyncIterator[Any]:
        async with (
            self._http_client() as http,
            streamable_http_client(
                self._url, http_client=http, max_sse_event_size=self._settings.max_message_bytes
            ) as streams,
        ):
            yield streams

    def _sse(self) -> AbstractAsyncContextManager[Any]:
        return sse_client(self._url, httpx_client_factory=self._http_client)

    def _http_client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        """The arguments are the SDK's wishes, which are none of ours."""
        del headers, timeout, auth
        return httpx2.AsyncClient(
            transport=_Shared(self._http),
            timeout=httpx2.Timeout(self._settings.connect_seconds, read=None),
            trust_env=False,
            max_redirects=3,
        )

    def _introduce(self, client: Client) -> None:
        self.protocol_version = client.protocol_version
        self.instructions = client.instructions
        if client.server_info is not None:
            self.server_name = client.server_info.name
            self.server_version = client.server_info.version

    # -- tools ------------------------------------------------------------------------------------

    async def list_tools(self, *, headers: Mapping[str, str] | None = None) -> list[ServedTool]:
        return await self._wait(
            self._list(_meta_of(headers)), self._settings.list_seconds, "didn't list its tools"
        )

    async def _list(self, meta: dict[str, Any] | None) -> list[ServedTool]:
        session = self._ready.result()
        tools: dict[str, ServedTool] = {}
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            page = await session.list_tools(
                params=types.PaginatedRequestParams.model_validate(
                    {"cursor": cursor} | ({"_meta": meta} if meta else {})
                )
            )
            for tool in page.tools:
                tools[tool.name] = served_tool(tool, self._settings.max_schema_bytes)
            if len(tools) > self._settings.max_tools:
                raise ToolServerFailed(f"It lists more than {self._settings.max_tools} tools.")
            cursor = page.next_cursor
            if not cursor:
                return list(tools.values())
            if cursor in seen:
                raise ToolServerFailed("Its list of tools goes round in circles.")
            seen.add(cursor)
        raise ToolServerFailed(f"Its list of tools has more than {MOST_PAGES} pages.")

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> ToolOutput:
        call = self._call(name, dict(arguments), _meta_of(headers))
        return await self._wait(
            call, self._settings.call_seconds, f"didn't answer the call of '{name[:100]}'"
        )

    async def _call(
        self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None
    ) -> ToolOutput:
        # Not session.call_tool: that one also checks the result against the server's schema, whose
        # patterns could keep the event loop busy for ever.
        request = types.CallToolRequest(
            params=types.CallToolRequestParams.model_validate(
                {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {})
            )
        )
        result = await self._ready.result().send_request(request, types.CallToolResult)
        return tool_output(result, self._settings.max_output_bytes)

    # -- waiting ----------------------------------------------------------------------------------

    async def _wait(
        self, work: Coroutine[Any, Any, T] | asyncio.Future[T], seconds: float, what: str
    ) -> T:
        """The result of this. It is given up when the time is over or the session breaks."""
        task = work if isinstance(work, asyncio.Future) else _alone(work)
        try:
            either: list[asyncio.Future[Any]] = [task, self._broken]
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                try:
                    return task.result()
                except asyncio.CancelledError:
                    raise self._broken_off() from None
                except Exception as error:  # noqa: BLE001  (whatever the SDK raises)
                    raise self._failed(error) from None
            if self._broken.done():
                raise self._broken.result()
            raise self._said(f"it {what} within {seconds:g} seconds")
        finally:
            if not task.done():
                task.cancel()
                # The server is told; who waits here is not kept by a server that doesn't listen.
                await asyncio.wait([task], timeout=SETTLE_SECONDS)

    def _break(self, failure: Failure) -> None:
        self._fail(self._said(failure.message, status=failure.status))

    def _fail(self, error: ToolServerFailed) -> None:
        if not self._broken.done():
            self._broken.set_result(error)

    def _broken_off(self) -> ToolServerFailed:
        return (
            self._broken.result() if self._broken.done() else self._said("the session was closed")
        )

    def _failed(self, error: BaseException) -> ToolServerFailed:
        """Whatever went wrong, in words that may be shown."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        failure = self._http.last_failure
        match error:
            case ToolServerFailed(message=message) if message.startswith(self._prefix):
                found = error
            case ToolServerFailed(message=message, status=status, code=code):
                found = self._said(_lower(message), status=status, code=code)
            case MCPError():
                found = self._refused(error)
            case pydantic.ValidationError():
                found = self._said("it answered with something that isn't what the protocol says")
            case httpx2.HTTPError() if failure is not None:
                found = self._said(failure.message, status=failure.status)
            case httpx2.SSEError():
                found = self._said("it answered with something that isn't a stream of events")
            case _:
                logger.debug("A session with %r failed", self.label, exc_info=error)
                found = self._said("it broke the protocol")
        return found

    def _refused(self, error: MCPError) -> ToolServerFailed:
        if failure := failure_in(error.data):
            code = None if failure.foreign or failure.status is None else error.code
            return self._said(failure.message, status=failure.status, code=code)
        if error.code == types.PARSE_ERROR:
            return self._said("its answer is larger than the gateway reads, cut off, or not JSON")
        if error.code == types.CONNECTION_CLOSED and error.message.startswith(_BROKEN_OFF):
            return self._said("it ended the connection before its answer was complete")
        return self._said(error.message[:500], code=error.code)

    @property
    def _prefix(self) -> str:
        return f"The tool server '{self.label}' failed: "

    def _said(
        self, what: str, *, status: int | None = None, code: int | None = None
    ) -> ToolServerFailed:
        return ToolServerFailed(f"{self._prefix}{what.rstrip('.')}.", status=status, code=code)


class _Shared(httpx2.AsyncBaseTransport):
    """The session's transport for one of two clients, which both would close it."""

    def __init__(self, transport: McpTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._transport.handle_async_request(request)


def _alone(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The work as a task that is in no span: else the SDK would put the request's own over ours."""
    context = contextvars.copy_context()
    context.run(attach, Context())
    return asyncio.create_task(work, context=context)


def _meta_of(headers: Mapping[str, str] | None) -> dict[str, Any] | None:
    """The trace context, which the transport also makes headers of."""
    named = {name.lower(): value for name, value in (headers or {}).items()}
    return {name: named[name] for name in _CONTEXT_HEADERS if name in named} or None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
