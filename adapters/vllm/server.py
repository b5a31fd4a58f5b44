"""A vLLM server as the application sees it: the ``ModelServer`` port."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Meta, Struct

from adapters.vllm import refusals
from adapters.vllm.connection import Connection, StaleConnection
from adapters.vllm.credentials import Credentials
from adapters.vllm.pool import ConnectionPool
from adapters.vllm.tls import context_for
from adapters.vllm.transport import PoolTransport
from gateway import __version__
from gateway.errors import GatewayError, UpstreamError
from gateway.ports import Answer, Headers, Quiet, ServedModel, ServerKind
from gateway.settings import BackendSettings, LimitSettings, TimeoutSettings

FORWARDED = frozenset(
    {
        b"anthropic-beta",
        b"anthropic-version",
        b"baggage",
        b"x-data-parallel-rank",
        b"x-session-id",
    }
)
"""The caller's headers that travel upstream by themselves: what vLLM or the trace may use, and
nothing that could be a credential. ``forward_headers`` adds to them."""

_NULLS_BEFORE_A_KEY = (b'"annotations":null,', b'"function_call":null,')
_NULLS_AFTER_A_KEY = (b',"prompt_tokens_details":null', b',"completion_tokens_details":null')
_ROUTE_EXISTS = frozenset({400, 405, 422})
_QUEUE = re.compile(
    rb"^vllm:num_requests_(?:running|waiting)(?:\{[^}\n]*\})? ([0-9.eE+]+)\s*$", re.MULTILINE
)
"""A series for each engine; ``num_requests_waiting_by_reason`` would count some twice."""
_PROBE_TIMEOUT = httpx.Timeout(10.0)


class _ListedModel(Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _ModelList(Struct, frozen=True):
    data: list[_ListedModel]


class _Embedding(Struct, frozen=True):
    embedding: list[float]


class _EmbeddingList(Struct, frozen=True):
    data: Annotated[list[_Embedding], Meta(min_length=1)]


ShapeT = TypeVar("ShapeT", bound=Struct)


class VllmAnswer:
    """The ``Answer`` port over one connection of a pool."""

    __slots__ = ("_connection", "_pool", "content_type", "status")

    def __init__(self, pool: ConnectionPool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.content_type = connection.content_type

    def header(self, name: bytes) -> bytes | None:
        if self._connection is None:
            return None
        return next((value for key, value in self._connection.headers if key == name), None)

    async def read(self) -> list[bytes]:
        if self._connection is None:
            return []
        blocks = self._connection.take_blocks()
        if not self._connection.done:  # a stream read whole, for the error in it
            while (block := await self._connection.next_block()) is not None:
                if not isinstance(block, type):
                    blocks.append(block)
        self.close()
        return blocks

    async def next_block(self) -> bytes | type[Quiet] | None:
        if self._connection is None:
            return None
        return await self._connection.next_block()

    def close(self) -> None:
        if self._connection is not None:
            self._pool.release(self._connection)
            self._connection = None


class VllmServer:
    """One vLLM, reached at ``backend.url`` (``http://vllm:8000/v1``; the ``/v1`` may be left out).

    ``changed`` is told host, port and +1 when a connection opens, -1 when one closes.
    """

    provider = "vllm"

    def __init__(
        self,
        backend: BackendSettings,
        *,
        timeouts: TimeoutSettings,
        limits: LimitSettings,
        heartbeat: float = 15.0,
        changed: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        url = urlsplit(backend.url.rstrip("/"))
        named = url.hostname or ""
        self.host = backend.address or named
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self._root = url.path.removesuffix("/v1")
        self.name = f"{url.scheme}://{named}:{self.port}{self._root}"
        if backend.address is not None:
            self.name += f" at {backend.address}"
        self._credentials = Credentials(backend)
        self._forward = FORWARDED | {name.lower().encode() for name in backend.forward_headers}
        own = backend.api_key or backend.api_key_file
        self._forwards_credentials = b"authorization" in self._forward and not own
        self._pool = ConnectionPool(
            self.host,
            self.port,
            tls=context_for(backend),
            timeouts=backend.timeouts.over(timeouts),
            limit=limits.max_upstream_connections,
            max_answer_bytes=limits.max_answer_bytes,
            heartbeat=heartbeat,
            server_name=named,
            changed=lambda change: changed(self.host, self.port, change),
        )
        authority = url.netloc.rpartition("@")[2]
        self._common = (
            f"host: {authority}\r\nuser-agent: understudy/{__version__}\r\n"
            "accept-encoding: identity\r\n"
        ).encode("ascii")
        self._heads: dict[str, bytes] = {}
        self._client = httpx.AsyncClient(
            transport=PoolTransport(self._pool, self._credentials.header_line),
            base_url=f"{url.scheme}://{authority}{self._root}",
            timeout=_PROBE_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
        )

    @property
    def open_connections(self) -> int:
        return self._pool.open_connections

    @property
    def busy_connections(self) -> int:
        return self._pool.busy_connections

    def forwards(self, header: bytes) -> bool:
        return header in self._forward

    # The data path.

    async def send(self, path: str, body: bytes, headers: Headers = ()) -> VllmAnswer:
        head = self._head(path)
        credentials = self._credentials
        lines = [head, credentials.header_line(), b"content-length: %d\r\n" % len(body)]
        for name, value in headers:
            if name == b"authorization" and credentials.configured:
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(b"\r\n")
        request = b"".join(lines)
        try:
            return await self._exchange(request, body, fresh=False)
        except StaleConnection:
            return await self._exchange(request, body, fresh=True)

    async def _exchange(self, request: bytes, body: bytes, *, fresh: bool) -> VllmAnswer:
        connection = await self._pool.acquire(fresh=fresh)
        try:
            await connection.request(request, body)
        except BaseException:  # cancelled too: whatever happened, the socket is no longer ours
            connection.abort()
            self._pool.release(connection)
            raise
        return VllmAnswer(self._pool, connection)

    def _head(self, path: str) -> bytes:
        if (head := self._heads.get(path)) is None:
            head = self._heads[path] = (
                f"POST {self._root}{path} HTTP/1.1\r\n".encode("ascii")
                + self._common
                + b"content-type: application/json\r\n"
            )
        return head

    async def refusal(self, path: str, answer: Answer) -> GatewayError:
        retry_after = answer.header(b"retry-after")
        body = b"".join(await answer.read())
        return refusals.refusal(
            answer.status,
            answer.content_type,
            body,
            path=path,
            retry_after=retry_after,
            credentials_forwarded=self._forwards_credentials,
        )

    def event_error(self, data: bytes) -> GatewayError | None:
        return refusals.event_error(data)

    def conform(self, body: bytes) -> bytes:
        """Drop the nulls that vLLM sends where OpenAI's schemas have an optional, non-null field.

        On bytes and yet safe: inside a JSON string every quote is escaped, so ``"name":null`` can
        only be a key of an object.
        """
        for null in _NULLS_BEFORE_A_KEY:
            body = body.replace(null, b"")
        for null in _NULLS_AFTER_A_KEY:
            body = body.replace(null, b"")
        return body

    # What discovery asks.

    async def list_models(self) -> list[ServedModel]:
        listed = await self._ask("GET", "/v1/models", _ModelList)
        return [
            ServedModel(name=model.id, context_length=model.max_model_len) for model in listed.data
        ]

    async def find_kind(self) -> ServerKind:
        """A GET on a POST route is 405 where the route exists and 404 where it doesn't.

        vLLM only has the routes of the tasks that its model can do.
        """
        if await self._has_route("/v1/chat/completions") or await self._has_route(
            "/v1/completions"
        ):
            return "chat"
        if await self._has_route("/v1/embeddings"):
            return "embedding"
        if await self._has_route("/v1/rerank"):
            return "rerank"
        return "chat"

    async def embedding_dimension(self, model: str) -> int:
        body = {"model": model, "input": "dimension"}
        answer = await self._ask("POST", "/v1/embeddings", _EmbeddingList, body)
        return len(answer.data[0].embedding)

    async def queue_length(self) -> int | None:
        response = await self._client.get("/metrics")
        if response.status_code != 200:
            return None
        counts = _QUEUE.findall(response.content)
        return int(sum(float(count) for count in counts)) if counts else None

    async def _has_route(self, path: str) -> bool:
        response = await self._client.get(path)
        status = response.status_code
        if status == 404:
            return False
        if status in _ROUTE_EXISTS or response.is_success:
            return True
        raise UpstreamError(f"{self.name}{path} answered {status} to a GET.")

    async def _ask(self, method: str, path: str, shape: type[ShapeT], body: Any = None) -> ShapeT:
        response = await self._client.request(method, path, json=body)
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code != 200:
            raise refusals.refusal(response.status_code, content_type, response.content)
        try:
            return msgspec.json.decode(response.content, type=shape)
        except refusals.NOT_JSON as error:
            raise UpstreamError(f"{self.name}{path} answered in an unknown shape.") from error

    async def aclose(self) -> None:
        await self._client.aclose()
        self._pool.close()
