"""The fake server: it listens, records what comes, and behaves as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict, deque
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from tests.support.upstream.answers import Whole
from tests.support.upstream.exchange import Behaviour, Exchange
from tests.support.upstream.vllm import Kind, Vllm
from tests.support.upstream.wire import Connection, Received

EVERY_PATH = "*"


class FakeVllm:
    """A vLLM on a loopback port, honest until told otherwise.

    `options` are those of `Vllm`: `reply`, `max_model_len`, `dimensions`, `api_key`,
    `request_id_headers`.
    """

    def __init__(
        self,
        models: list[str] | None = None,
        kind: Kind = "chat",
        *,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        served = models or ["fake-chat" if kind == "chat" else "fake-embedding"]
        if kind == "embedding":
            options.setdefault("max_model_len", 256)
        self.vllm = Vllm(served, kind, **options)
        self.port = port
        self.requests: list[Received] = []
        self._tls = ssl_context
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._failures: list[BaseException] = []
        self._told: dict[str, deque[tuple[Behaviour, int | None]]] = defaultdict(deque)
        self._arrival = asyncio.Condition()

    # -- addresses ---------------------------------------------------------------------------

    @property
    def root_url(self) -> str:
        """The address without `/v1`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address as a gateway's configuration has it."""
        return f"{self.root_url}/v1"

    @property
    def models(self) -> list[str]:
        """The served model names."""
        return self.vllm.models

    # -- faults ------------------------------------------------------------------------------

    def behave(self, path: str, behaviour: Behaviour | None, times: int | None = None) -> None:
        """Have the next requests to this path (`"*"`: to any) met by this behaviour.

        Calls queue up: one with `times` serves that many requests and gives way to the next; one
        without stays until `reset`, or until another takes its place. None means honest.

        A GET on a POST route, by which a gateway may find out what a server can do, is neither
        met nor counted. `"*"` meets all there is: discovery's `GET /v1/models` as well.
        """
        honest = behaviour or Exchange.honestly
        queue = self._told[path]
        if queue and queue[-1][1] is None:
            queue.pop()
        queue.append((honest, times))

    def reset(self, path: str | None = None) -> None:
        """Be honest again, on this path or on all."""
        if path is None:
            self._told.clear()
        else:
            self._told.pop(path, None)

    # -- what arrived ------------------------------------------------------------------------

    def requests_to(self, path: str) -> list[Received]:
        """The requests to this path so far."""
        return [request for request in self.requests if request.path == path]

    async def wait_for_request(
        self, n: int = 1, path: str | None = None, within: float = 30.0
    ) -> Received:
        """The n-th request (to this path), as soon as it has arrived."""

        def arrived() -> list[Received]:
            return self.requests if path is None else self.requests_to(path)

        async with asyncio.timeout(within), self._arrival:
            await self._arrival.wait_for(lambda: len(arrived()) >= n)
        return arrived()[n - 1]

    @property
    def open_connections(self) -> int:
        """How many sockets are connected now."""
        return len(self._connections)

    async def until_connections(self, count: int, within: float = 10.0) -> None:
        """Wait until exactly this many sockets are connected."""
        async with asyncio.timeout(within):
            while self.open_connections != count:
                await asyncio.sleep(0.005)

    def close_idle(self) -> None:
        """Close the kept-alive connections that carry no request now."""
        for connection in [one for one in self._connections if one.idle]:
            connection.close()

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; after `stop`, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._serve, self._connections, self._failures),
            "127.0.0.1",
            self.port,
            ssl=self._tls,
            reuse_address=True,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Die as if killed: refuse connections, reset the open ones."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._connections):
            connection.reset()
        await self.until_connections(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if self._failures and error is None:
            raise self._failures[0]

    async def _serve(self, connection: Connection, request: Received) -> None:
        async with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()
        answer = self.vllm.answer(request)
        exchange = Exchange(connection, request, answer, self.vllm.echo(request))
        wrong_method = isinstance(answer, Whole) and answer.status == HTTPStatus.METHOD_NOT_ALLOWED
        paths = [EVERY_PATH] if wrong_method else [request.path, EVERY_PATH]
        await self._next_behaviour(paths)(exchange)

    def _next_behaviour(self, paths: list[str]) -> Behaviour:
        for queue in map(self._told.get, paths):
            if not queue:
                continue
            behaviour, times = queue[0]
            if times is not None:
                queue.popleft()
                if times > 1:
                    queue.appendleft((behaviour, times - 1))
            return behaviour
        return Exchange.honestly
