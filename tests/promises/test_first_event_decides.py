"""vLLM answers 200 and may put an overload or a crash into the stream. Until the first good event
an error becomes a real status; after it the error is passed on, the span fails, and the stream ends
without pretending success."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from opentelemetry.trace import StatusCode

from tests.support.expect import error_in, payloads, refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "fake-chat", "prompt": "hi", "stream": True},
    "/v1/messages": {**CHAT, "max_tokens": 50},
}
OPERATIONS = {"/v1/completions": "text_completion"}
BUSY = b'data: {"error": {"message": "busy", "type": "x", "param": null, "code": 503}}\n\n'
BREAKS = {"rst": faults.resets_after, "eof": faults.closes_after}


@pytest.fixture
async def gateway(upstream: FakeVllm):
    async with InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway:
        yield gateway


def sdk(gateway: InProcessGateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)


async def both_spans(gateway: InProcessGateway, path: str) -> list[Any]:
    operation = OPERATIONS.get(path, "chat")
    return [await gateway.span(f"{operation} fake-chat"), await gateway.span(f"POST {path}")]


@pytest.mark.parametrize("path", STREAMS)
async def test_an_overload_as_first_event_is_a_503(gateway, upstream, path):
    """The caller gets 503 with retry-after and vLLM's words, and both spans fail."""
    upstream.behave(path, faults.error_event_first())
    async with gateway.client() as client:
        answer = await client.post(path, json=STREAMS[path])
    assert "currently busy" in refused(answer, 503)["message"]
    for span in await both_spans(gateway, path):
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "upstream_unavailable"


@pytest.mark.parametrize("path", STREAMS)
async def test_a_crash_as_first_event_is_a_500(gateway, upstream, path):
    """A dead engine is 500, whatever the status of the stream was."""
    upstream.behave(path, faults.error_event_first(500, "EngineCore died.", "InternalServerError"))
    async with gateway.client() as client:
        answer = await client.post(path, json=STREAMS[path])
    assert refused(answer, 500)["message"] == "EngineCore died."


async def test_a_mistake_as_first_event_is_a_400(gateway, upstream):
    """An error of the caller that vLLM finds out late is still the caller's."""
    upstream.behave("*", faults.error_event_first(400, "bad grammar", "BadRequestError"), times=1)
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert refused(answer, 400)["message"] == "bad grammar"


@pytest.mark.parametrize("split", ["chunks", "bytes"])
async def test_the_first_event_may_come_in_pieces(gateway, upstream, split):
    """An error that arrives a few bytes at a time is a status all the same."""

    async def behaviour(exchange: Any) -> None:
        exchange.answer = type(exchange.answer)([BUSY, b"data: [DONE]\n\n"])
        await faults.in_small_writes(split)(exchange)

    upstream.behave("/v1/chat/completions", behaviour)
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert refused(answer, 503)["message"] == "busy"


async def test_the_sdk_raises_before_the_first_chunk(gateway, upstream):
    """A client of OpenAI's SDK meets the overload where it can retry: at the call itself."""
    upstream.behave("/v1/chat/completions", faults.overloaded())
    async with sdk(gateway) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(**CHAT)
    assert raised.value.status_code == 503


async def test_the_sdk_s_own_retry_gets_the_answer(gateway, upstream):
    """Because it is a status with retry-after, the SDK tries again by itself."""
    upstream.behave("/v1/chat/completions", faults.overloaded(), times=1)
    async with sdk(gateway) as client:
        stream = await client.with_options(max_retries=1).chat.completions.create(**CHAT)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == upstream.vllm.reply


@pytest.mark.parametrize("path", STREAMS)
async def test_a_later_error_is_passed_on_as_the_last_event(gateway, upstream, path):
    """After a good event the error comes in the caller's shape, and no `[DONE]` after it."""
    upstream.behave(path, faults.error_event_after(events=2))
    async with gateway.client() as client:
        answer = await client.post(path, json=STREAMS[path])
    assert answer.status_code == 200
    *good, last = payloads(answer.content)
    assert len(good) == 2
    assert "EngineCore encountered an issue" in error_in(last)["message"]
    assert b"[DONE]" not in answer.content
    assert (b"event: error\ndata:" in answer.content) == (path == "/v1/messages")
    for span in await both_spans(gateway, path):
        assert span.status.status_code is StatusCode.ERROR, span.name
        assert span.attributes["error.type"], span.name


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("path", STREAMS)
async def test_a_connection_lost_mid_stream_ends_in_an_error_event(gateway, upstream, path, how):
    """The caller's answer is whole HTTP, its last event the error, and nothing claims success."""
    upstream.behave(path, BREAKS[how](events=2))
    async with gateway.client() as client:
        answer = await client.post(path, json=STREAMS[path])  # raises where the framing is broken
    assert answer.status_code == 200
    *good, last = payloads(answer.content)
    assert len(good) == 2
    assert error_in(last)["code"] == "upstream_disconnected"
    assert b"[DONE]" not in answer.content
    for span in await both_spans(gateway, path):
        assert span.status.status_code is StatusCode.ERROR, span.name
        assert span.attributes["error.type"] == "upstream_disconnected", span.name


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_before_its_first_event_is_a_502(gateway, upstream, how):
    """A head without an event is no answer yet, so it can still be a status."""
    upstream.behave("/v1/chat/completions", BREAKS[how](events=0))
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert refused(answer, 502)["code"] == "upstream_disconnected"


async def test_half_an_event_never_reaches_the_caller(gateway, upstream):
    """What came of an event whose end never came is dropped; the error event follows whole ones."""

    async def behaviour(exchange: Any) -> None:
        first, second, *_ = exchange.answer.events
        await exchange.start_stream()
        await exchange.chunk(first + second[:30])
        exchange.close()

    upstream.behave("/v1/chat/completions", behaviour)
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    good, last = payloads(answer.content)
    assert b'"role":"assistant"' in good
    assert error_in(last)["code"] == "upstream_disconnected"


@pytest.mark.parametrize(
    "fault",
    [faults.error_event_after(2), faults.resets_after(2), faults.closes_after(2)],
    ids=["error event", "rst", "eof"],
)
async def test_the_sdk_raises_on_what_ends_a_stream_early(gateway, upstream, fault):
    """A client of OpenAI's SDK gets what came and then an APIError, never a quiet end."""
    upstream.behave("/v1/chat/completions", fault)
    seen = 0
    async with sdk(gateway) as client:
        stream = await client.chat.completions.create(**CHAT)
        with pytest.raises(openai.APIError):
            async for _ in stream:
                seen += 1
    assert seen == 2


async def test_a_recorded_crash_is_told_as_it_happened(gateway, upstream):
    """The stream of a vLLM whose worker was killed: every token, then the error, then no more."""
    upstream.behave("/v1/chat/completions", faults.recorded("crash-worker-killed-inflight-stream"))
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    *good, last = payloads(answer.content)
    assert len(good) == 26
    assert error_in(last)["type"] == "server_error"


async def test_a_failure_mid_stream_is_logged(gateway, upstream, caplog):
    """Whoever runs the gateway finds it in the log, though the status was 200."""
    upstream.behave("/v1/chat/completions", faults.resets_after(2))
    async with gateway.client() as client:
        await client.post("/v1/chat/completions", json=CHAT)
    await gateway.span("POST /v1/chat/completions")
    lines = [record for record in caplog.records if record.name == "gateway.access"]
    assert [(line.levelname, line.error_type) for line in lines] == [
        ("WARNING", "upstream_disconnected")
    ]
