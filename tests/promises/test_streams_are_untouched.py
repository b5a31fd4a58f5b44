"""A stream reaches the caller as the bytes that the model server sent, event by event; a request
reaches the server as the bytes that the caller sent. Only the usage event is asked for always and
shown on request."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from tests.support.expect import error_in, payloads
from tests.support.inprocess import InProcessGateway
from tests.support.samples import sample
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.exchange import Behaviour, Exchange

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
WITH_USAGE = {**CHAT, "stream_options": {"include_usage": True}}
STREAMS: dict[str, dict[str, Any]] = {
    PATH: WITH_USAGE,
    "/v1/completions": {**WITH_USAGE, "prompt": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 50},
}
CUTS = {
    "as it comes": Exchange.honestly,
    "in small chunks": faults.in_small_writes("chunks"),
    "in small writes": faults.in_small_writes("bytes"),
    "in one write": faults.in_one_write(),
    "slowly": faults.slow(between_events=0.01),
}


@pytest.fixture
async def gateway(upstream: FakeVllm):
    async with InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway:
        yield gateway


@pytest.fixture
async def beating(upstream: FakeVllm):
    """A gateway whose heart beats quickly."""
    async with InProcessGateway(
        discover=[upstream.url], models=["fake-chat"], server={"heartbeat_seconds": 0.1}
    ) as gateway:
        yield gateway


class Sent:
    """What the model server sent, kept while it is sent."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def by(self, behaviour: Behaviour) -> Behaviour:
        async def keeping(exchange: Exchange) -> None:
            self.events = list(exchange.answer.events)
            await behaviour(exchange)

        return keeping


async def post(gateway: InProcessGateway, path: str, body: Any) -> bytes:
    async with gateway.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return answer.content


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", STREAMS)
async def test_the_bytes_are_those_that_were_sent(gateway, upstream, path, cut):
    """However the network cuts a stream, the caller gets the server's bytes."""
    sent = Sent()
    upstream.behave(path, sent.by(CUTS[cut]))
    assert await post(gateway, path, STREAMS[path]) == b"".join(sent.events)


@pytest.mark.parametrize("path", STREAMS)
async def test_line_ends_of_two_bytes_stay(gateway, upstream, path):
    """Events in CRLF, which the standard allows, are passed on in CRLF."""
    sent = Sent()
    upstream.behave(path, sent.by(faults.crlf_events()))
    answer = await post(gateway, path, STREAMS[path])
    assert answer == b"".join(sent.events).replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "name",
    [
        "chat-logprobs-stream",
        "chat-n2-stream",
        "chat-stream-continuous-usage",
        "flags-reasoning-and-content-stream",
        "tools-required-strict-stream",
    ],
)
async def test_recorded_streams_pass_as_they_were(gateway, upstream, name):
    """Tool calls, reasoning, several choices and log probabilities of a real vLLM."""
    upstream.behave(PATH, faults.recorded(name))
    assert await post(gateway, PATH, WITH_USAGE) == b"".join(sample(name).events)


@pytest.mark.alone
async def test_an_event_comes_when_it_was_sent(gateway, upstream):
    """Nothing is held back: each event is with the caller before the next one is made."""
    upstream.behave(PATH, faults.slow(between_events=0.1))
    loop = asyncio.get_running_loop()
    async with gateway.client() as client, client.stream("POST", PATH, json=CHAT) as answer:
        arrivals = [loop.time() async for _ in answer.aiter_raw()]
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert len(arrivals) >= 8
    assert min(gaps[:-2]) > 0.05


# -- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
async def test_usage_is_counted_and_not_shown(gateway, upstream, options):
    """A caller who didn't ask for the usage event doesn't get it; metric and span have it."""
    sent = Sent()
    upstream.behave(PATH, sent.by(Exchange.honestly))
    answer = await post(gateway, PATH, {**CHAT, **options})
    hidden = next(event for event in sent.events if b'"choices":[]' in event)
    assert answer == b"".join(event for event in sent.events if event is not hidden)
    usage = json.loads(hidden.removeprefix(b"data: "))["usage"]
    span = await gateway.span("chat fake-chat")
    for kind, key in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert span.attributes[f"gen_ai.usage.{kind}_tokens"] == usage[key]
        labels = {
            "gen_ai_operation_name": "chat",
            "gen_ai_provider_name": "vllm",
            "gen_ai_request_model": "fake-chat",
            "server_address": "127.0.0.1",
            "gen_ai_token_type": kind,
        }
        assert gateway.metric("gen_ai_client_token_usage_sum", **labels) == usage[key]


async def test_usage_is_shown_to_who_asks(gateway):
    """With include_usage the last event before `[DONE]` has the counts and no choices."""
    *_, usage, done = payloads(await post(gateway, PATH, WITH_USAGE))
    assert done == b"[DONE]"
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("path", [PATH, "/v1/completions"])
@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_usage": True}], ids=str
)
async def test_usage_is_always_asked_for(gateway, upstream, path, options):
    """Whatever the caller says, the model server is asked to count."""
    body = {**STREAMS[path], "stream_options": options}
    await post(gateway, path, body)
    request = upstream.requests_to(path)[-1]
    assert request.json["stream_options"]["include_usage"] is True
    assert {**request.json, "stream_options": options} == body


# -- heartbeats -------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_long_prefill_is_bridged_by_comments(beating, upstream):
    """Before the first event and between events, a silent stream carries comments."""
    sent = Sent()

    async def behaviour(exchange: Exchange) -> None:
        await exchange.start_stream()
        await asyncio.sleep(0.5)
        await exchange.events(exchange.answer.events[:3], 0.3)
        await exchange.events(exchange.answer.events[3:])
        await exchange.end_stream()

    upstream.behave(PATH, sent.by(behaviour))
    answer = await post(beating, PATH, WITH_USAGE)
    assert answer.startswith(b": ping\n\n: ping\n\n")
    assert b": ping" in answer.partition(sent.events[0])[2]
    assert answer.replace(b": ping\n\n", b"") == b"".join(sent.events)


@pytest.mark.alone
async def test_comments_stay_out_of_cut_events(beating, upstream):
    """A server that falls silent in the middle of an event doesn't get a comment put into it."""
    sent = Sent()

    async def behaviour(exchange: Exchange) -> None:
        whole = b"".join(exchange.answer.events)
        await exchange.start_stream()
        for part in (whole[:400], whole[400:]):
            await exchange.chunk(part)
            await asyncio.sleep(0.35)
        await exchange.end_stream()

    upstream.behave(PATH, sent.by(behaviour))
    answer = await post(beating, PATH, WITH_USAGE)
    assert b": ping" in answer
    assert answer.replace(b": ping\n\n", b"") == b"".join(sent.events)


@pytest.mark.alone
async def test_an_error_after_a_comment_is_an_event(beating, upstream):
    """Once a comment has gone out the status is 200, so the first event's error stays an event."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.start_stream()
        await asyncio.sleep(0.4)
        await exchange.chunk(b'data: {"error": {"message": "busy", "code": 503}}\n\n')
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.end_stream()

    upstream.behave(PATH, behaviour)
    answer = await post(beating, PATH, CHAT)
    [error] = payloads(answer)
    assert error_in(error)["message"] == "busy"
    assert answer.startswith(b": ping\n\n")
    assert (await beating.span("chat fake-chat")).attributes["error.type"]


@pytest.mark.alone
async def test_a_break_after_a_comment_is_an_event(beating, upstream):
    """The same for a connection that is lost."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.start_stream()
        await asyncio.sleep(0.4)
        exchange.reset()

    upstream.behave(PATH, behaviour)
    [error] = payloads(await post(beating, PATH, CHAT))
    assert error_in(error)["code"] == "upstream_disconnected"


# -- requests ---------------------------------------------------------------------------------

FIELDS = (
    b'"top_k":5, "structured_outputs" : {"regex":"a\\u00e9|\xc3\xa9"},'
    b'"chat_template_kwargs":{"enable_thinking":false,"x":[1,  2]},"seed":12345678901234567,'
    b'"temperature":0.10000000000000000555,"logit_bias":{"50256":-100},'
    b'"guess":123456789012345678901234567890,"small":1e-320,"exact":1.0,"plus":1E+2,'
    b'"nothing":null,"text":"\\/ \\u0041"'
)


async def test_a_request_arrives_as_its_bytes(gateway, upstream):
    """A request in which nothing must be set is the caller's to the last blank."""
    body = b'{ "model":"fake-chat","messages":[{"role":"user","content":"hi"}] ,' + FIELDS + b"}"
    async with gateway.client() as client:
        await client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert upstream.requests_to(PATH)[-1].body == body


async def test_unknown_fields_keep_their_bytes_in_a_stream(gateway, upstream):
    """Where usage is asked for, every other field still has the caller's bytes and digits."""
    body = (
        b'{"model":"fake-chat","messages":[{"role":"user","content":"hi"}],"stream":true,'
        + FIELDS
        + b"}"
    )
    async with gateway.client() as client:
        await client.post(PATH, content=body, headers={"content-type": "application/json"})
    sent = upstream.requests_to(PATH)[-1].body
    for field in (
        b'{"regex":"a\\u00e9|\xc3\xa9"}',
        b'{"enable_thinking":false,"x":[1,  2]}',
        b"12345678901234567",
        b"0.10000000000000000555",
        b"123456789012345678901234567890",
        b"1e-320",
        b"1.0",
        b"1E+2",
        b'"\\/ \\u0041"',
    ):
        assert field in sent, field
    asked = {"stream_options": {"include_usage": True}}
    assert json.loads(sent) == {**json.loads(body), **asked}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_other_requests_arrive_as_their_bytes_too(embedding_upstream, path):
    """Embeddings and reranking are relayed the same way."""
    body = b'{"model" : "fake-embedding","input":"a","query":"a","documents":["b"],"extra":1.50}'
    async with (
        InProcessGateway(discover=[embedding_upstream.url], models=["fake-embedding"]) as gateway,
        gateway.client() as client,
    ):
        answer = await client.post(path, content=body)
    assert answer.status_code == 200, answer.text
    assert embedding_upstream.requests_to(path)[-1].body == body
