"""When a client leaves, the model server stops working for it: within 100 ms, in every way to
leave, on every endpoint, and without a socket left open."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, Received, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

LIMIT_SECONDS = 0.1
ATTEMPTS = 3
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/openai/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "fake-chat", "prompt": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 5},
    "/v1/messages/count_tokens": CHAT,
    "/tokenize": {"model": "fake-chat", "prompt": "hi"},
    "/v1/detokenize": {"model": "fake-chat", "tokens": [1]},
    "/v1/embeddings": {"model": "fake-embedding", "input": "hi"},
    "/v1/rerank": {"model": "fake-embedding", "query": "a", "documents": ["b"]},
    "/v1alpha/inference/rerank": {"model": "fake-embedding", "query": "a", "items": ["b"]},
}
STREAMS = ["/v1/chat/completions", "/v1/completions", "/v1/messages"]


@pytest.fixture
async def gateway(upstream: FakeVllm, embedding_upstream: FakeVllm):
    async with InProcessGateway(
        discover=[upstream.url, embedding_upstream.url], models=["fake-chat", "fake-embedding"]
    ) as gateway:
        yield gateway


class Caller:
    """A client on a bare socket, so that a test can leave at any byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def posts(cls, gateway: InProcessGateway, path: str, body: dict[str, Any]) -> Caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        data = json.dumps(body).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return cls(reader, writer)

    def leaves(self, *, abruptly: bool) -> float:
        """Close the socket, with RST where abruptly; returns the time."""
        if abruptly:
            self.writer.transport.abort()
        else:
            self.writer.close()
        return asyncio.get_running_loop().time()


def posted(servers: list[FakeVllm]) -> list[Received]:
    """The generations that were asked for, in order."""
    requests = [request for server in servers for request in server.requests]
    return sorted(
        (request for request in requests if request.method == "POST"),
        key=lambda request: request.arrived,
    )


class Leaving:
    """Measures how long a model server works on for a client that has left.

    The least of a few attempts: a busy machine can hold up the test itself, but no machine makes a
    gateway quick that isn't.
    """

    def __init__(self, gateway: InProcessGateway, servers: list[FakeVllm]) -> None:
        self._gateway = gateway
        self._servers = servers

    async def seconds(
        self,
        path: str,
        *,
        stream: bool = False,
        after: float = 0.15,
        after_an_event: bool = False,
        abruptly: bool = False,
    ) -> float:
        body = {**BODIES[path], **({"stream": True} if stream else {})}
        least = math.inf
        for _ in range(ATTEMPTS):
            before = len(posted(self._servers))
            caller = await Caller.posts(self._gateway, path, body)
            if after_an_event:
                await caller.reader.readuntil(b"\n\n\r\n")
            await until(lambda: len(posted(self._servers)) > before, "request")  # noqa: B023
            request = posted(self._servers)[-1]
            await asyncio.sleep(after)
            left = caller.leaves(abruptly=abruptly)
            await until(lambda: request.gone is not None, "cancellation", within=2)  # noqa: B023
            assert request.gone is not None
            least = min(least, request.gone - left)
            if least < LIMIT_SECONDS:
                break
        return least


@pytest.fixture
def leaving(gateway: InProcessGateway, upstream: FakeVllm, embedding_upstream: FakeVllm) -> Leaving:
    return Leaving(gateway, [upstream, embedding_upstream])


@pytest.mark.parametrize("abruptly", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("path", BODIES)
async def test_leaving_a_plain_call_stops_it(leaving, upstream, embedding_upstream, path, abruptly):
    """A call that isn't a stream is cancelled while the model server works on it."""
    for server in (upstream, embedding_upstream):
        server.behave("*", faults.hangs_before_head())
    assert await leaving.seconds(path, abruptly=abruptly) < LIMIT_SECONDS


@pytest.mark.parametrize("path", STREAMS)
async def test_leaving_before_the_first_byte_stops_the_stream(leaving, upstream, path):
    """A stream whose prefill is still running is cancelled."""
    upstream.behave("*", faults.hangs_after_head())
    assert await leaving.seconds(path, stream=True) < LIMIT_SECONDS


@pytest.mark.parametrize("abruptly", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("path", STREAMS)
async def test_leaving_mid_stream_stops_it(leaving, upstream, path, abruptly):
    """A stream that has begun is cancelled between two events."""
    upstream.behave("*", faults.hangs_after(events=2))
    seconds = await leaving.seconds(
        path, stream=True, after=0, after_an_event=True, abruptly=abruptly
    )
    assert seconds < LIMIT_SECONDS


async def test_leaving_at_once_stops_it_too(leaving, upstream):
    """A client that leaves right after its request doesn't leave a generation behind."""
    upstream.behave("*", faults.hangs_before_head())
    assert await leaving.seconds("/v1/chat/completions", after=0, abruptly=True) < LIMIT_SECONDS


async def test_no_socket_is_left_open(gateway, upstream, embedding_upstream):
    """After many clients have left in the middle, no connection to the model server remains."""
    upstream.behave("*", faults.hangs_after(events=1))
    callers = [
        await Caller.posts(gateway, "/v1/chat/completions", {**CHAT, "stream": True})
        for _ in range(50)
    ]
    for caller in callers:
        await caller.reader.readuntil(b"\n\n\r\n")
        caller.leaves(abruptly=False)
    labels = {"server_address": "127.0.0.1", "server_port": upstream.url.split(":")[2][:-3]}
    idle = 1  # the one that discovery keeps alive between its questions
    await until(
        lambda: gateway.metric("understudy_upstream_connections", **labels) <= idle,
        "end of the connections",
    )
    await until(lambda: upstream.open_connections <= idle, "end of the sockets")


async def test_the_spans_say_that_the_client_left(gateway, upstream, embedding_upstream):
    """Both spans end when the client leaves, marked with why."""
    upstream.behave("*", faults.hangs_after(events=1))
    caller = await Caller.posts(gateway, "/v1/chat/completions", {**CHAT, "stream": True})
    await caller.reader.readuntil(b"\n\n\r\n")
    caller.leaves(abruptly=True)
    call = await gateway.span("chat fake-chat")
    request = await gateway.span("POST /v1/chat/completions")
    assert call.attributes["error.type"] == "client_disconnected"
    assert request.attributes["error.type"] == "client_disconnected"
