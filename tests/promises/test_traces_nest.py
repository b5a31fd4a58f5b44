"""Every call is one trace: the caller's span, the gateway's SERVER span below it, a CLIENT span for
each call to a model server below that, and the CLIENT span's context goes on to vLLM."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MALFORMED = [
    "",
    "nonsense",
    f"00-{TRACE_ID}-{SPAN_ID}",
    f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"ff-{TRACE_ID}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{SPAN_ID}-01-more",
    f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
]


@pytest.fixture
async def gateway(upstream: FakeVllm, embedding_upstream: FakeVllm):
    async with InProcessGateway(
        discover=[upstream.url, embedding_upstream.url], models=["fake-chat", "fake-embedding"]
    ) as gateway:
        yield gateway


async def ask(
    gateway: InProcessGateway, body: dict[str, Any] = CHAT, path: str = PATH, **headers: str
) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.client() as client:
        return await client.post(path, json=body, headers=named)


async def pair(gateway: InProcessGateway, path: str = PATH, call: str = "chat fake-chat") -> Any:
    """The SERVER span and the CLIENT span, once both are there."""
    return await gateway.span(f"POST {path}"), await gateway.span(call)


# -- nesting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["json", "stream"])
async def test_spans_nest_from_the_caller_to_the_model_server(gateway, upstream, body):
    """Caller, SERVER, CLIENT, vLLM: one trace id, each the child of the one before."""
    await ask(gateway, body, traceparent=SAMPLED)
    server, client = await pair(gateway)
    assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert {format_trace_id(span.context.trace_id) for span in (server, client)} == {TRACE_ID}
    assert format_span_id(server.parent.span_id) == SPAN_ID
    assert client.parent.span_id == server.context.span_id
    received = upstream.requests_to(PATH)[-1].headers["traceparent"]
    assert received == f"00-{TRACE_ID}-{format_span_id(client.context.span_id)}-01"


async def test_without_a_caller_s_trace_one_begins(gateway, upstream):
    """The SERVER span is a root then, and vLLM is still its descendant."""
    await ask(gateway)
    server, client = await pair(gateway)
    assert server.parent is None
    assert server.context.trace_id == client.context.trace_id != 0
    _, trace_id, span_id, flags = upstream.requests_to(PATH)[-1].headers["traceparent"].split("-")
    assert trace_id == format_trace_id(server.context.trace_id)
    assert span_id == format_span_id(client.context.span_id)
    assert flags == "01"


@pytest.mark.parametrize("value", MALFORMED)
async def test_a_malformed_traceparent_is_ignored(gateway, upstream, value):
    """As the W3C says: as if it weren't there."""
    await ask(gateway, traceparent=value)
    server, _ = await pair(gateway)
    assert server.parent is None
    received = upstream.requests_to(PATH)[-1].headers["traceparent"]
    assert TRACE_ID not in received
    assert received.startswith("00-")


async def test_a_later_version_is_understood(gateway):
    """What follows the known fields of a later version doesn't matter."""
    await ask(gateway, traceparent=f"01-{TRACE_ID}-{SPAN_ID}-01-future")
    server, _ = await pair(gateway)
    assert format_span_id(server.parent.span_id) == SPAN_ID


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["json", "stream"])
async def test_an_unsampled_trace_makes_no_spans(gateway, upstream, body):
    """The caller's decision holds here and goes on to vLLM."""
    answer = await ask(gateway, body, traceparent=f"00-{TRACE_ID}-{SPAN_ID}-00")
    assert answer.status_code == 200
    await asyncio.sleep(0.05)
    assert gateway.spans() == []
    version, trace_id, _, flags = upstream.requests_to(PATH)[-1].headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "00")


async def test_without_an_exporter_a_trace_passes_through(upstream):
    """Nothing is recorded, so the caller's context goes on as it came, and none is made up."""
    async with InProcessGateway(
        discover=[upstream.url], models=["fake-chat"], traced=False
    ) as gateway:
        await ask(gateway, traceparent=SAMPLED, tracestate="a=1")
        await ask(gateway)
        await ask(gateway, traceparent="nonsense", tracestate="a=1")
    with_trace, without, malformed = upstream.requests_to(PATH)[-3:]
    assert with_trace.headers["traceparent"] == SAMPLED
    assert with_trace.headers["tracestate"] == "a=1"
    for request in (without, malformed):
        assert "traceparent" not in request.headers
        assert "tracestate" not in request.headers


async def test_tracestate_travels(gateway, upstream):
    """Vendors' state goes on with the context, and is on the spans."""
    await ask(gateway, traceparent=SAMPLED, tracestate="vendor=abc,other=1")
    server, client = await pair(gateway)
    assert upstream.requests_to(PATH)[-1].headers["tracestate"] == "vendor=abc,other=1"
    assert server.context.trace_state.to_header() == "vendor=abc,other=1"
    assert client.context.trace_state.get("vendor") == "abc"


async def test_an_odd_tracestate_does_no_harm(gateway):
    """A header that isn't one is dropped."""
    answer = await ask(gateway, traceparent=SAMPLED, tracestate=";;=,=,a b=c")
    assert answer.status_code == 200


async def test_each_attempt_has_its_own_client_span(upstream):
    """A fallback is two CLIENT spans under one SERVER span; the first one says why."""
    async with (
        FakeVllm(["fake-chat"]) as other,
        InProcessGateway(
            configured=[
                {
                    "id": "fake-chat",
                    "backends": [{"url": upstream.url}, {"url": other.url, "priority": 1}],
                }
            ]
        ) as gateway,
    ):
        upstream.behave(PATH, faults.unavailable())
        answer = await ask(gateway, traceparent=SAMPLED)
        server = await gateway.span(f"POST {PATH}")
    assert answer.status_code == 200
    failed, worked = [span for span in gateway.spans() if span.kind is SpanKind.CLIENT]
    assert {failed.parent.span_id, worked.parent.span_id} == {server.context.span_id}
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "upstream_unavailable"
    assert worked.status.status_code is StatusCode.UNSET
    assert server.status.status_code is StatusCode.UNSET
    assert failed.attributes["server.port"] == upstream.port
    assert worked.attributes["server.port"] == other.port


# -- attributes ----------------------------------------------------------------------------------


async def test_a_plain_chat_completion(gateway, upstream):
    """What was asked, what was answered, how many tokens: by the GenAI conventions."""
    answer = await ask(
        gateway,
        {
            **CHAT,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "max_tokens": 3,
            "seed": 7,
            "n": 2,
            "stop": ["END"],
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "response_format": {"type": "json_object"},
        },
    )
    _, span = await pair(gateway)
    said = answer.json()
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "fake-chat",
        "gen_ai.response.model": "fake-chat",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 5,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.output.type": "json",
        "gen_ai.response.id": said["id"],
        "gen_ai.response.finish_reasons": ("length", "length"),
        "gen_ai.usage.input_tokens": said["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": said["usage"]["completion_tokens"],
        "openai.api.type": "chat_completions",
        "openai.response.system_fingerprint": said["system_fingerprint"],
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "understudy.backend.id": "vllm",
    }


@pytest.mark.alone
async def test_a_streamed_chat_completion(gateway, upstream):
    """The same of a stream, with the time to its first event; it ends when the stream ends."""
    upstream.behave(PATH, faults.slow(before_head=0.1, between_events=0.05))
    await ask(gateway, STREAM)
    server, span = await pair(gateway)
    events = 10
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0.1 <= span.attributes["gen_ai.response.time_to_first_chunk"] < 0.3
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["gen_ai.response.id"].startswith("chatcmpl-")
    assert span.attributes["gen_ai.usage.input_tokens"] == 1
    assert span.attributes["gen_ai.usage.output_tokens"] == 8
    assert span.end_time - span.start_time >= (0.1 + 0.05 * (events - 1)) * 1e9
    assert server.start_time <= span.start_time
    assert span.end_time <= server.end_time


async def test_finish_reasons_come_in_every_shape(gateway, upstream):
    """A stream whose last content event carries the reason, as vLLM does at max_tokens."""
    await ask(gateway, {**STREAM, "max_tokens": 2})
    _, span = await pair(gateway)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)


async def test_a_text_completion(gateway):
    """Its operation is `text_completion`."""
    body = {"model": "fake-chat", "prompt": "hi"}
    await ask(gateway, body, "/v1/completions")
    _, span = await pair(gateway, "/v1/completions", "text_completion fake-chat")
    assert span.attributes["gen_ai.usage.output_tokens"] == 8
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


@pytest.mark.parametrize("texts", [1, 40], ids=["small", "large"])
async def test_embeddings(gateway, texts):
    """Embeddings have input tokens, an encoding and no output; large answers count too."""
    body = {"model": "fake-embedding", "input": ["hello"] * texts, "encoding_format": "float"}
    answer = await ask(gateway, body, "/v1/embeddings")
    _, span = await pair(gateway, "/v1/embeddings", "embeddings fake-embedding")
    assert span.attributes["gen_ai.request.encoding_formats"] == ("float",)
    assert span.attributes["gen_ai.usage.input_tokens"] == answer.json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_messages(gateway, stream):
    """Anthropic's words for usage and reasons land in the same attributes."""
    body = {**CHAT, "max_tokens": 50, "temperature": 0.3, "stop_sequences": ["x"]}
    await ask(gateway, {**body, "stream": stream}, "/v1/messages")
    _, span = await pair(gateway, "/v1/messages")
    assert span.attributes["gen_ai.request.max_tokens"] == 50
    assert span.attributes["gen_ai.request.temperature"] == 0.3
    assert span.attributes["gen_ai.request.stop_sequences"] == ("x",)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("end_turn",)
    assert span.attributes["gen_ai.response.id"].startswith("chatcmpl-")
    assert span.attributes["gen_ai.usage.input_tokens"] == 1
    assert span.attributes["gen_ai.usage.output_tokens"] == 8


async def test_the_name_at_the_server_is_told_too(upstream):
    """`request.model` is the caller's name, `response.model` the server's."""
    backend = {"url": upstream.url, "model": "fake-chat"}
    async with InProcessGateway(
        configured=[{"id": "granite", "aliases": ["gpt-4o"], "backends": [backend]}]
    ) as gateway:
        await ask(gateway, {**CHAT, "model": "gpt-4o"})
        span = await gateway.span("chat gpt-4o")
    assert span.attributes["gen_ai.request.model"] == "gpt-4o"
    assert span.attributes["gen_ai.response.model"] == "fake-chat"


async def test_the_server_span_follows_the_http_conventions(gateway):
    """Method, route, path, scheme and status."""
    await ask(gateway)
    server, _ = await pair(gateway)
    attributes = dict(server.attributes)
    assert attributes.pop("http.response.header.x-request-id")[0].startswith("req_")
    assert attributes == {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": 200,
        "url.path": PATH,
        "url.scheme": "http",
    }


async def test_a_route_s_template_names_the_span(gateway):
    """Not the path, which would make a name of every model."""
    async with gateway.client() as client:
        await client.get("/v1/models/fake-chat")
    span = await gateway.span("GET /v1/models/{model}")
    assert span.attributes["http.route"] == "/v1/models/{model}"
    assert span.attributes["url.path"] == "/v1/models/fake-chat"


# -- status --------------------------------------------------------------------------------------


async def test_a_caller_s_mistake_is_no_error_of_the_server_span(gateway):
    """4xx leaves the status unset, with the error's type beside it."""
    answer = await ask(gateway, {**CHAT, "temperature": -1})
    assert answer.status_code == 400
    server, client = await pair(gateway)
    assert server.status.status_code is StatusCode.UNSET
    assert server.attributes["error.type"] == "InvalidRequest"
    assert server.attributes["http.response.status_code"] == 400
    assert client.status.status_code is StatusCode.ERROR


async def test_a_request_that_reaches_no_server_has_one_span(gateway):
    """An unknown model is refused without a CLIENT span."""
    await ask(gateway, {**CHAT, "model": "nobody"})
    server = await gateway.span(f"POST {PATH}")
    assert server.status.status_code is StatusCode.UNSET
    assert [span.kind for span in gateway.spans()] == [SpanKind.SERVER]


async def test_a_failure_is_an_error_of_both(gateway, upstream):
    """5xx marks the SERVER span as well."""
    upstream.behave(PATH, faults.vllm_error(500))
    await ask(gateway)
    for span in await pair(gateway):
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"]


async def test_probes_make_no_spans(gateway):
    """What asks all day whether the gateway lives would only fill the store."""
    async with gateway.client() as client:
        for path in ("/livez", "/readyz", "/metrics", "/v1/health"):
            assert (await client.get(path)).status_code == 200
        await client.get("/v1/models")
    await gateway.span("GET /v1/models")
    assert [span.name for span in gateway.spans()] == ["GET /v1/models"]


# -- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["json", "stream"])
async def test_one_id_ties_answer_body_span_and_server_together(gateway, upstream, body):
    """`x-request-id` is `req_` and the hex that vLLM was given and put into the body's id."""
    answer = await ask(gateway, body, x_client_request_id="mine-42", x_request_id="ignored")
    hexadecimal = answer.headers["x-request-id"].removeprefix("req_")
    assert len(hexadecimal) == 32
    assert f'"chatcmpl-{hexadecimal}"' in answer.text
    assert upstream.requests_to(PATH)[-1].headers["x-request-id"] == hexadecimal
    server, _ = await pair(gateway)
    assert server.attributes["http.response.header.x-request-id"] == (f"req_{hexadecimal}",)
    assert server.attributes["http.request.header.x-client-request-id"] == ("mine-42",)


# -- content -------------------------------------------------------------------------------------

TALK = {
    "model": "fake-chat",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Capital?"}, {"type": "image_url"}]},
    ],
}
SENT = [
    {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
    {"role": "user", "parts": [{"type": "text", "content": "Capital?\n[image_url]"}]},
]
RECEIVED = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": "The capital of France is Paris."}],
        "finish_reason": "stop",
    }
]


async def captured(upstream: FakeVllm, mode: str | None, body: dict[str, Any]) -> Any:
    environment = {} if mode is None else {CAPTURE: mode}
    async with InProcessGateway(
        discover=[upstream.url], models=["fake-chat"], environment=environment
    ) as gateway:
        answer = await ask(gateway, body)
        assert answer.status_code == 200
        span = await gateway.span("chat fake-chat")
    content = {name: json.loads(v) for name, v in span.attributes.items() if "messages" in name}
    events = [
        {name: json.loads(value) for name, value in event.attributes.items()}
        for event in span.events
    ]
    return content, events


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("mode", "on_span", "as_event"),
    [
        (None, False, False),
        ("", False, False),
        ("false", False, False),
        ("no_content", False, False),
        ("true", True, False),
        ("True", True, False),
        ("SPAN_ONLY", True, False),
        ("event_only", False, True),
        ("SPAN_AND_EVENT", True, True),
    ],
)
async def test_content_is_captured_only_by_opt_in(upstream, mode, on_span, as_event, stream):
    """Messages in and out, on the span or as its event, in the conventions' JSON."""
    content, events = await captured(upstream, mode, {**TALK, "stream": stream})
    expected = {"gen_ai.input.messages": SENT, "gen_ai.output.messages": RECEIVED}
    assert content == (expected if on_span else {})
    assert events == ([expected] if as_event else [])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": "none"},
        {"role": "assistant", "tool_calls": [{"id": 1, "function": None}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": "f"}]},
        {"role": "assistant", "tool_calls": [None]},
        {"role": "tool", "tool_call_id": 5, "content": {"a": 1}},
        {"role": "user", "content": 5},
    ],
    ids=json.dumps,
)
async def test_what_cannot_be_captured_passes_all_the_same(upstream, message, caplog):
    """Telemetry never decides on a request: an odd message goes to vLLM, which judges it."""
    upstream.vllm.answer = lenient(upstream.vllm.answer)
    content, _ = await captured(upstream, "true", {**CHAT, "messages": [message]})
    assert content["gen_ai.output.messages"] == RECEIVED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def lenient(answer: Any) -> Any:
    """A fake that doesn't look into messages."""

    def answers(request: Any) -> Any:
        if request.method == "POST":
            request.body = json.dumps(CHAT).encode()
        return answer(request)

    return answers
