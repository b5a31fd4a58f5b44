"""Input that nobody sends on purpose, from callers and from servers, ends in one clear error."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from adapters.vllm import VllmServer
from gateway.errors import UpstreamError
from gateway.settings import BackendSettings, LimitSettings, TimeoutSettings
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
BODY = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def gateway(upstream: FakeVllm):
    async with InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway:
        yield gateway


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_bytes_that_are_not_utf8_are_refused(gateway, stream):
    """Also where they are in a field that the gateway doesn't read."""
    body = (
        b'{"model":"fake-chat","messages":[{"role":"user","content":"hi"}],"\xff":1,"stream":'
        + stream.encode()
        + b"}"
    )
    async with gateway.client() as client:
        answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


async def test_odd_content_is_no_failure_where_it_is_captured(upstream):
    """Content capture never stands in a request's way."""
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-chat"],
        environment={"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"},
    ) as gateway:
        body = json.dumps(BODY).encode().replace(b'"hi"', b'"\xff"')
        async with gateway.client() as client:
            answer = await client.post(
                CHAT, content=body, headers={"content-type": "application/json"}
            )
    assert answer.status_code == 400


@pytest.mark.parametrize("seed", [2**63, -(2**70)])
async def test_a_number_that_telemetry_cannot_hold_reaches_the_server(gateway, upstream, seed):
    """It is left out of the span, and its digits stay."""
    async with gateway.client() as client:
        await client.post(CHAT, json={**BODY, "seed": seed})
    assert f'"seed":{seed}'.encode() in upstream.requests_to(CHAT)[-1].body.replace(b" ", b"")
    assert "gen_ai.request.seed" not in (await gateway.span("chat fake-chat")).attributes


async def test_what_is_not_http_gets_the_one_shape(gateway):
    """A bad request line is answered with JSON, and the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"NONSENSE\r\n\r\n")
    said = await reader.read()
    writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "invalid_http"


async def test_other_stream_options_are_kept(gateway, upstream):
    """Asking for usage doesn't take away what else the caller asked."""
    options = {"include_obfuscation": False, "continuous_usage_stats": True}
    async with gateway.client() as client:
        await client.post(CHAT, json={**BODY, "stream": True, "stream_options": options})
    assert upstream.requests_to(CHAT)[-1].json["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


async def test_an_upstreams_own_code_is_no_label(gateway, upstream):
    """It goes to the caller; metrics and spans have a name of ours."""
    error = {"error": {"message": "no", "type": "x", "param": None, "code": "id-4711"}}
    upstream.behave(CHAT, faults.answers_with(400, json.dumps(error).encode()), times=1)
    async with gateway.client() as client:
        answer = await client.post(CHAT, json=BODY)
    assert answer.json()["error"]["code"] == "id-4711"
    assert (await gateway.span("chat fake-chat")).attributes["error.type"] == "InvalidRequest"


async def test_an_empty_token_file_does_not_replace_the_token(upstream, tmp_path):
    """A rotation that is half done must not stop traffic."""
    file = tmp_path / "token"
    file.write_text("first")
    backend = {"url": upstream.url, "api_key_file": str(file)}
    async with InProcessGateway(discover=[backend], models=["fake-chat"]) as gateway:
        file.write_text("")
        await asyncio.sleep(1.2)
        async with gateway.client() as client:
            await client.post(CHAT, json=BODY)
    assert upstream.requests_to(CHAT)[-1].headers["authorization"] == "Bearer first"


@pytest.mark.parametrize("status", [302, 401, 429, 500, 503])
async def test_a_server_that_is_busy_when_asked_is_asked_again(status):
    """An odd answer to the question what a model is for is no answer."""
    server = VllmServer(
        BackendSettings(url="http://127.0.0.1:9"),
        timeouts=TimeoutSettings(),
        limits=LimitSettings(),
    )
    server._client = httpx.AsyncClient(
        base_url="http://127.0.0.1:9",
        transport=httpx.MockTransport(lambda _: httpx.Response(status)),
    )
    with pytest.raises(UpstreamError):
        await server.find_kind()
    await server.aclose()


async def test_a_model_whose_dimension_is_not_told_is_there_all_the_same(embedding_upstream):
    """And its dimension, as soon as it is told."""
    embedding_upstream.behave("/v1/embeddings", faults.unavailable(), times=1)
    async with InProcessGateway(
        discover=[embedding_upstream.url],
        discover_interval_seconds=0.2,
        models=["fake-embedding"],
    ) as gateway:
        await until(
            lambda: gateway.application.catalog.models()[0].dimension == 384, "the dimension"
        )


async def test_a_client_that_leaves_is_no_failure_of_the_server(gateway, upstream):
    """The SERVER span says why it ended and is not marked as an error."""
    upstream.behave(CHAT, faults.hangs_after(events=1))
    async with (
        gateway.client() as client,
        client.stream("POST", CHAT, json={**BODY, "stream": True}) as answer,
    ):
        async for _ in answer.aiter_bytes():
            break
    span = await gateway.span(f"POST {CHAT}")
    assert span.attributes["error.type"] == "client_disconnected"
    assert span.status.is_unset
