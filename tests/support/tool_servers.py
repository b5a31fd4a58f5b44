"""Tool servers on loopback: real ones, made with the protocol's SDK, and ones that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, TextContent

from gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.support.gateway import HOST, free_port

KINDS = ("today", "sessions", "sse")
"""Today's protocol, the one with a handshake and sessions, and the older transport."""


class Serving:
    """An ASGI application on a port of its own. `requests` are all that came: method, path, headers
    and body."""

    def __init__(self, app: ASGIApp, *, path: str = "/mcp", **options: Any) -> None:
        self.port = free_port()
        self.path = path
        self.requests: list[dict[str, Any]] = []
        self._app = app
        self._options = options
        self._server: uvicorn.Server
        self._task: asyncio.Task[None]

    @property
    def url(self) -> str:
        scheme = "https" if self._options else "http"
        return f"{scheme}://{HOST}:{self.port}{self.path}"

    def said(self, method: str) -> list[dict[str, Any]]:
        """The messages of this JSON-RPC method that came, with the headers beside them."""
        return [
            {**message, "headers": request["headers"]}
            for request in self.requests
            if request["body"].startswith(b"{")
            and (message := json.loads(request["body"])).get("method") == method
        ]

    async def __aenter__(self) -> Self:
        config = uvicorn.Config(
            self._record,
            host=HOST,
            port=self.port,
            log_config=None,
            interface="asgi3",
            lifespan="on",
            timeout_graceful_shutdown=1,
            **self._options,
        )
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._task.done()
            await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Like a process that dies: whatever is open breaks off."""
        self.drop()
        self._server.should_exit = True
        self._server.force_exit = True
        await self._task

    def drop(self) -> None:
        """Break off the connections that are open."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]  # both protocols have one

    async def _record(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        entry = {"method": scope["method"], "path": scope["path"], "headers": headers, "body": b""}
        self.requests.append(entry)

        async def recorded() -> Message:
            message = await receive()
            entry["body"] += message.get("body", b"")
            return message

        await self._app(scope, recorded, send)


class ToolServing(Serving):
    """A real server with tools that echo, fail, sleep, return a lot or show a picture.

    `kind` is one of `KINDS`; with `token`, requests without it are refused.
    """

    def __init__(self, kind: str = "today", *, token: str | None = None, **options: Any) -> None:
        server = _tools()
        app: Any = server.sse_app() if kind == "sse" else server.streamable_http_app()
        if kind == "sessions":
            app = _without_discovery(app)
        if token is not None:
            app = _guarded(app, token)
        super().__init__(app, path="/sse" if kind == "sse" else "/mcp", **options)
        self.kind = kind


def _tools() -> MCPServer:
    server = MCPServer("demo", version="1.2", instructions="Echo things.", log_level="CRITICAL")

    @server.tool()
    def echo(text: str) -> str:
        """Say it again."""
        return text

    @server.tool()
    def fail(text: str) -> str:
        """Never works."""
        raise ToolError(text)

    @server.tool()
    async def sleep(seconds: float) -> str:
        """Take a while."""
        await asyncio.sleep(seconds)
        return "slept"

    @server.tool()
    def much(size: int) -> str:
        """Return a lot."""
        return "ä" * size

    @server.tool()
    def picture() -> CallToolResult:
        """Something that is no text."""
        image = ImageContent(type="image", data="aGVsbG8=", mime_type="image/png")
        return CallToolResult(content=[TextContent(type="text", text="Look:"), image])

    return server


def _without_discovery(app: ASGIApp) -> ASGIApp:
    """A server from before `server/discover`: it doesn't know that method."""

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        first = await receive()
        if b'"server/discover"' in first.get("body", b""):
            await answer(send, 400, b"Bad Request: Missing session ID", "text/plain")
            return
        waiting = [first]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await app(scope, again, send)

    return old


def _guarded(app: ASGIApp, token: str) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {token}".encode():
            await answer(send, 401, b'{"error": "invalid_token"}')
            return
        await app(scope, receive, send)

    return guarded


# -- servers that misbehave ----------------------------------------------------------------------

Reply = Callable[[dict[str, Any], Send], Awaitable[None]]


class OddServing(Serving):
    """A server of the older protocol that does its handshake well, unless told otherwise.

    `replies` has a function for each JSON-RPC method, which gets the message and ASGI's `send`.
    """

    def __init__(self, **replies: Reply) -> None:
        self._replies = {name.replace("_", "/"): reply for name, reply in replies.items()}
        super().__init__(self._answer)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        more = True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        if scope["method"] != "POST":
            await answer(send, 405, b"")
            return
        message = json.loads(body)
        method = message.get("method", "")
        if reply := self._replies.get(method):
            await reply(message, send)
        elif method == "initialize":
            await result(send, message, INITIALIZED, session="session-1")
        elif "id" not in message:
            await answer(send, 202, b"")
        elif method == "tools/list":
            await result(send, message, {"tools": [tool("echo")]})
        else:
            error = {"code": -32601, "message": f"Method not found: {method}"}
            await answer_json(send, {"jsonrpc": "2.0", "id": message["id"], "error": error})


INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "odd", "version": "0"},
}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


async def result(
    send: Send, message: dict[str, Any], value: Any, *, session: str | None = None
) -> None:
    """A good answer to this message."""
    body = {"jsonrpc": "2.0", "id": message["id"], "result": value}
    await answer_json(send, body, [(b"mcp-session-id", session.encode())] if session else [])


async def answer_json(send: Send, body: Any, headers: list[tuple[bytes, bytes]] = []) -> None:  # noqa: B006
    await answer(send, 200, json.dumps(body).encode(), headers=headers)


async def answer(
    send: Send,
    status: int,
    body: bytes,
    kind: str = "application/json",
    *,
    headers: list[tuple[bytes, bytes]] = [],  # noqa: B006
) -> None:
    fields = [(b"content-type", kind.encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
