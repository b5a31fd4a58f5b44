"""What the application may rely on of any `ModelServer`, run on every adapter there is.

A new adapter adds its name to ``ADAPTERS`` and passes the same suite.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from adapters.vllm import VllmServer
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.ports import ModelServer, Quiet
from gateway.settings import BackendSettings, LimitSettings, TimeoutSettings
from tests.support.gateway import free_port
from tests.support.upstream import FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
JSON = json.dumps(CHAT).encode()
STREAM = json.dumps({**CHAT, "stream": True}).encode()
TIMEOUTS = TimeoutSettings(connect=1.0, first_byte=0.6, idle=0.6, total=3.0)


def vllm(url: str) -> ModelServer:
    return VllmServer(
        BackendSettings(url=url, forward_headers=("X-Tenant",)),
        timeouts=TIMEOUTS,
        limits=LimitSettings(max_upstream_connections=8),
        heartbeat=0.2,
    )


ADAPTERS: dict[str, Callable[[str], ModelServer]] = {"vllm": vllm}


@pytest.fixture(params=ADAPTERS)
async def server(request, upstream: FakeVllm) -> AsyncIterator[ModelServer]:
    made = ADAPTERS[request.param](upstream.url)
    yield made
    await made.aclose()


@pytest.fixture(params=ADAPTERS)
async def nowhere(request) -> AsyncIterator[ModelServer]:
    made = ADAPTERS[request.param](f"http://127.0.0.1:{free_port()}/v1")
    yield made
    await made.aclose()


async def blocks_of(answer) -> list[bytes]:
    blocks = []
    while (block := await answer.next_block()) is not None:
        assert not isinstance(block, type)
        blocks.append(block)
    return blocks


async def test_it_says_who_it_is(server, upstream):
    """For logs, spans and the list of providers."""
    assert (server.host, server.port) == ("127.0.0.1", upstream.port)
    assert server.name == upstream.root_url
    assert server.provider


async def test_a_plain_answer_is_read_whole(server, upstream):
    """Status, type, headers by lower-case name, and the body in blocks; the connection is kept."""
    for _ in range(3):
        answer = await server.send(PATH, JSON)
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert answer.header(b"server") == b"uvicorn"
        assert answer.header(b"x-nothing") is None
        body = b"".join(await answer.read())
        assert json.loads(body)["object"] == "chat.completion"
    assert server.open_connections == upstream.open_connections == 1


async def test_a_stream_comes_in_blocks(server, upstream):
    """As they came, then None, again and again."""
    answer = await server.send(PATH, STREAM)
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    whole = b"".join(await blocks_of(answer))
    assert whole.endswith(b"data: [DONE]\n\n")
    assert await answer.next_block() is None
    answer.close()
    answer.close()
    assert server.open_connections == 1


async def test_the_request_is_posted_as_it_is(server, upstream):
    """Path, body and headers; what is JSON says so."""
    (await server.send(PATH, JSON, [(b"traceparent", b"00-x"), (b"x-request-id", b"1")])).close()
    request = upstream.requests[-1]
    assert (request.method, request.path, request.body) == ("POST", PATH, JSON)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["traceparent"] == "00-x"
    assert request.headers["x-request-id"] == "1"


async def test_a_connection_is_busy_as_long_as_its_answer(server, upstream):
    """Until the answer is read or closed; an idle one isn't."""
    assert server.busy_connections == 0
    stream = await server.send(PATH, STREAM)
    plain = await server.send(PATH, JSON)
    assert server.busy_connections == 2
    await plain.read()
    assert (server.busy_connections, server.open_connections) == (1, 2)
    stream.close()
    assert server.busy_connections == 0


async def test_silence_is_told(server, upstream):
    """Between two blocks of a stream, so that the caller's connection can be kept alive."""
    upstream.behave(PATH, faults.hangs_after(events=1))
    answer = await server.send(PATH, STREAM)
    assert isinstance(await answer.next_block(), bytes)
    assert await answer.next_block() is Quiet
    answer.close()


@pytest.mark.parametrize("body", [JSON, STREAM], ids=["json", "stream"])
async def test_a_refusal_is_an_answer(server, upstream, body):
    """A status that isn't 2xx is no exception; `refusal` tells what it means."""
    upstream.behave(PATH, faults.validation_error())
    answer = await server.send(PATH, body)
    assert answer.status == 400
    error = await server.refusal(PATH, answer)
    assert isinstance(error, InvalidRequest)
    assert error.param == "temperature"
    assert server.open_connections == 1


async def test_a_server_that_is_not_there_was_sent_nothing(nowhere):
    """So another one may be asked."""
    with pytest.raises(UpstreamUnreachable) as raised:
        await nowhere.send(PATH, JSON)
    assert raised.value.nothing_sent
    with pytest.raises(UpstreamError):
        await nowhere.list_models()
    assert nowhere.open_connections == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.resets_before_head(), UpstreamError),
        (faults.closes_before_head(), UpstreamError),
        (faults.sends(b"nonsense\r\n\r\n"), UpstreamError),
        (faults.resets_mid_body(), UpstreamError),
        (faults.hangs_before_head(), UpstreamTimeout),
        (faults.hangs_after_head(), UpstreamTimeout),
    ],
    ids=["rst", "fin", "not http", "rst mid body", "silent", "silent after head"],
)
async def test_what_breaks_off_raises(server, upstream, fault, error):
    """An `UpstreamError` or one of its kinds, and the socket is gone."""
    upstream.behave(PATH, fault)
    with pytest.raises(error) as raised:
        await server.send(PATH, JSON)
    assert not raised.value.nothing_sent
    await asyncio.sleep(0.01)
    assert server.open_connections == 0


@pytest.mark.parametrize(
    "fault", [faults.resets_after(1), faults.closes_after(1)], ids=["rst", "eof"]
)
async def test_a_stream_that_breaks_off_raises(server, upstream, fault):
    """After what had come of it."""
    upstream.behave(PATH, fault)
    answer = await server.send(PATH, STREAM)
    assert b"assistant" in await answer.next_block()
    with pytest.raises(UpstreamError):
        await answer.next_block()
    answer.close()


async def test_closing_stops_the_server(server, upstream):
    """An answer that isn't at its end is broken off, which the server sees at once."""
    upstream.behave(PATH, faults.endless())
    answer = await server.send(PATH, STREAM)
    await answer.next_block()
    answer.close()
    await upstream.requests[-1].until_gone(within=5)
    await asyncio.sleep(0)
    assert server.open_connections == 0


@pytest.mark.parametrize("body", [JSON, STREAM], ids=["json", "stream"])
async def test_cancelling_is_safe(server, upstream, body):
    """While it waits for an answer; the next request is none the worse."""
    upstream.behave(PATH, faults.hangs_before_head(), times=1)
    sending = asyncio.create_task(server.send(PATH, body))
    request = await upstream.wait_for_request()
    sending.cancel()
    await request.until_gone(within=5)
    with pytest.raises(asyncio.CancelledError):
        await sending
    answer = await server.send(PATH, body)
    assert answer.status == 200
    answer.close()


async def test_many_at_once_do_not_mix(server, upstream):
    """Each gets its own answer."""
    upstream.behave(PATH, faults.slow(before_head=0.05))

    async def ask(number: int) -> None:
        answer = await server.send(PATH, JSON, [(b"x-request-id", b"%d" % number)])
        assert json.loads(b"".join(await answer.read()))["id"] == f"chatcmpl-{number}"

    await asyncio.gather(*map(ask, range(8)))


async def test_past_its_limit_it_says_so_at_once(server, upstream):
    """A queue here would only hide the one in the server."""
    upstream.behave(PATH, faults.slow(before_head=0.2))
    running = [asyncio.create_task(server.send(PATH, JSON)) for _ in range(8)]
    await upstream.wait_for_request(8)
    with pytest.raises(UpstreamUnavailable) as raised:
        await server.send(PATH, JSON)
    assert raised.value.code == "too_many_connections"
    assert raised.value.retry_after
    for answer in await asyncio.gather(*running):
        answer.close()


async def test_an_error_in_an_event_is_seen(server):
    """And what is none isn't taken for one."""
    error = server.event_error(b'{"error": {"message": "busy", "code": 503}}')
    assert isinstance(error, GatewayError)
    assert (error.status, error.message) == (503, "busy")
    for data in (b"[DONE]", b"{}", b'{"error": null}', b'{"choices": []}', b"nonsense", b"[1]"):
        assert server.event_error(data) is None


async def test_conforming_keeps_what_is_allowed(server):
    """Only what OpenAI's schemas don't allow goes; text that looks like it stays."""
    body = b"".join(await (await server.send(PATH, JSON)).read())
    before, after = json.loads(body), json.loads(server.conform(body))
    assert after["choices"][0]["message"]["content"] == before["choices"][0]["message"]["content"]
    assert "annotations" not in after["choices"][0]["message"]
    quoted = json.dumps({"content": '"annotations":null,"function_call":null,'}).encode()
    assert json.loads(server.conform(quoted)) == json.loads(quoted)


async def test_credentials_do_not_travel_by_themselves(server):
    """A header goes on where it is known to be harmless, or where settings say so."""
    assert server.forwards(b"baggage")
    assert server.forwards(b"x-tenant")
    for header in (b"authorization", b"cookie", b"x-api-key", b"host", b"content-length"):
        assert not server.forwards(header)


async def test_it_knows_its_models(server, upstream):
    """Names and how much they can read."""
    [model] = await server.list_models()
    assert (model.name, model.context_length) == ("fake-chat", upstream.vllm.max_model_len)
    assert await server.find_kind() == "chat"


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_it_knows_its_kind_and_dimension(adapter, embedding_upstream):
    """Found out from the server alone."""
    server = ADAPTERS[adapter](embedding_upstream.root_url)
    assert await server.find_kind() == "embedding"
    assert await server.embedding_dimension("fake-embedding") == 384
    with pytest.raises(GatewayError):
        await server.embedding_dimension("nobody")
    await server.aclose()


async def test_closing_it_closes_every_connection(server, upstream):
    """Those in use too."""
    upstream.behave(PATH, faults.endless())
    answers = [await server.send(PATH, STREAM) for _ in range(3)]
    await server.aclose()
    await upstream.until_connections(0)
    for answer in answers:
        answer.close()


QUEUE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.5
"""


@pytest.mark.parametrize(
    ("status", "body", "length"),
    [(200, QUEUE, 6), (200, b"", None), (200, b"<html>", None), (404, QUEUE, None)],
)
async def test_its_queue_is_what_runs_and_what_waits(server, upstream, status, body, length):
    """Of all its engines; a server that doesn't tell has none, which is no error."""
    upstream.behave("/metrics", faults.answers_with(status, body, content_type="text/plain"))
    assert await server.queue_length() == length


async def test_the_queue_of_a_server_that_is_not_there_is_an_error(nowhere):
    """As every other question to it is."""
    with pytest.raises(UpstreamUnreachable):
        await nowhere.queue_length()
