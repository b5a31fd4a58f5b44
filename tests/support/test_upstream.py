"""The fake vLLM is faithful: what it answers equals what a real one was recorded to answer."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from typing import Any

import httpx
import pytest
import trustme

from tests.support.samples import Sample, names, sample
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
QUESTION = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**QUESTION, "stream": True}

_VARYING = re.compile(
    r'("id":"(?:chatcmpl-|cmpl-|embd-|score-|modelperm-))[^"]*'
    r'|("created":)\d+|("(?:prompt_|total_|input_|original_input_)tokens":)\d+'
)
CHECKED = ("err-", "emb-", "messages-", "completions-", "tokenize-", "chat-stream_", "chat-top")
REFUSALS = [
    name
    for name in names()
    if name.startswith(CHECKED)
    and sample(name).status >= 400
    and not sample(name).name.startswith(("err-prompt-beyond", "emb-too-long"))
]
ANSWERS = [
    "chat-nonstream",
    "chat-nonstream-client-request-id",
    "chat-body-request_id",
    "chat-length",
    "chat-stream-usage",
    "chat-stream-nousage",
    "chat-stream-length",
    "chat-stream-continuous-usage",
    "messages-anthropic",
    "messages-anthropic-stream",
    "messages-count_tokens",
    "models",
    "models-one",
    "health",
    "version",
    "load",
    "emb-models",
]


async def ask(server: FakeVllm, recorded: Sample) -> httpx.Response:
    """Send the request of a sample."""
    kinds = {"err-content-type-none": None, "err-content-type-text-plain": "text/plain"}
    kind = kinds.get(recorded.name, "application/json")
    headers = {"content-type": kind} if kind else {}
    if recorded.name == "chat-nonstream-client-request-id":
        headers["x-request-id"] = "my-req-123"
    body = b'{"model": "smollm2-135m", "messages": [' if "malformed" in recorded.name else None
    async with httpx.AsyncClient(base_url=server.root_url, timeout=30) as client:
        assert recorded.method
        assert recorded.path
        return await client.request(
            recorded.method, recorded.path, content=body or recorded.request, headers=headers
        )


def alike(text: str) -> str:
    """A body without what differs from call to call: ids, times, prompt lengths."""
    return _VARYING.sub(lambda found: f"{found[1] or found[2] or found[3]}…", text)


def of(name: str) -> FakeVllm:
    """A fake started like the server of which the sample was recorded."""
    if name.startswith("emb-"):
        return FakeVllm(["all-minilm-l6-v2"], kind="embedding")
    return FakeVllm(["smollm2-135m"])


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusals_are_recorded_ones(name: str) -> None:
    """A bad request is refused with the recorded status and the recorded bytes."""
    async with of(name) as server:
        answer = await ask(server, sample(name))
    assert answer.status_code == sample(name).status
    if name != "emb-bad-encoding":
        assert answer.text == sample(name).body.decode()


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_are_recorded_ones(name: str) -> None:
    """An answer equals the recorded one, key for key and event for event, but for ids and times."""
    recorded = sample(name)
    async with of(name) as server:
        server.vllm.reply = "The capital of France is Paris."
        answer = await ask(server, recorded)
    assert answer.status_code == recorded.status
    assert without_root(alike(answer.text)) == without_root(alike(recorded.body.decode()))
    if recorded.body:
        assert list(answer.headers)[:2] == list(recorded.headers)[:2] == ["date", "server"]
    assert set(answer.headers) == set(recorded.headers)


def without_root(text: str) -> str:
    """A model list without the folder of its model."""
    return re.sub(r'"root":"[^"]*"', '"root":"…"', text)


def keys(value: Any) -> Any:
    """The shape of a JSON value: its keys in order, without the values."""
    if isinstance(value, dict):
        return [(key, keys(item)) for key, item in value.items()]
    return [keys(value[0])] if isinstance(value, list) and value and value[0] is not None else None


@pytest.mark.parametrize(
    "name",
    [
        "completions",
        "completions-batch",
        "completions-stream",
        "emb-float",
        "emb-base64",
        "emb-token-ids",
        "emb-rerank",
        "emb-rerank-v2",
        "tokenize-prompt",
        "detokenize",
    ],
)
async def test_answers_have_the_recorded_shape(name: str) -> None:
    """Where the text can't be the model's, keys and their order are those recorded."""
    recorded = sample(name)
    async with of(name) as server:
        answer = await ask(server, recorded)
    if "stream" in name:
        lines = [line[6:] for line in answer.text.split("\n\n") if line.startswith("data: {")]
        assert [keys(json.loads(line)) for line in lines] == [keys(e) for e in recorded.payloads]
    else:
        assert keys(answer.json()) == keys(recorded.json)


async def test_one_http_chunk_carries_one_event() -> None:
    """A stream is framed as vLLM frames it: an event is a chunk, `[DONE]` is the last."""
    async with FakeVllm(["smollm2-135m"]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps(STREAM).encode()
        head = f"POST {CHAT} HTTP/1.1\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answered = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    chunks = answered.partition(b"\r\n\r\n")[2]
    recorded = sample("chat-stream-nousage")
    assert len(recorded.chunks) == len(recorded.events)
    assert chunks.count(b"\n\n\r\n") == len(recorded.events)
    assert chunks.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_request_is_recorded_as_it_came() -> None:
    """Method, path, headers and body of each request can be read back."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        await client.post(f"{server.url}/chat/completions", json=QUESTION, headers={"X-A": "b"})
        request = await server.wait_for_request()
    assert (request.method, request.path, request.json) == ("POST", CHAT, QUESTION)
    assert request.headers["x-a"] == "b"
    assert request.finished
    assert request.gone is None


@pytest.mark.alone
async def test_a_client_that_leaves_is_noticed() -> None:
    """`gone` tells when the client's socket closed before the answer was complete."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        server.behave(CHAT, faults.hangs_before_head())
        call = asyncio.create_task(client.post(server.root_url + CHAT, json=QUESTION))
        request = await server.wait_for_request()
        left = time.monotonic()
        call.cancel()
        assert 0 <= await request.until_gone() - left < 0.5
        await server.until_connections(0)
        assert not request.finished


BREAKS = [
    (faults.resets_before_head(), httpx.ReadError),
    (faults.closes_before_head(), httpx.RemoteProtocolError),
    (faults.resets_mid_body(), httpx.ReadError),
    (faults.closes_mid_body(), httpx.RemoteProtocolError),
]


@pytest.mark.parametrize("body", [QUESTION, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize(("fault", "error"), BREAKS, ids=["rst", "fin", "rst-mid", "fin-mid"])
async def test_broken_connections(fault: Any, error: type[Exception], body: Any) -> None:
    """RST and FIN reach the client as what they are, before the head and after it."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        server.behave(CHAT, fault, times=1)
        with pytest.raises(error):
            await client.post(server.root_url + CHAT, json=body)
        assert (await client.post(server.root_url + CHAT, json=body)).status_code == 200
        assert (server.requests[0].finished, server.requests[0].gone) == (False, None)


@pytest.mark.parametrize(
    "fault",
    [
        faults.in_small_writes(),
        faults.in_small_writes("bytes"),
        faults.in_one_write(),
        faults.slow(between_events=0.001),
        faults.closes_connection(),
        faults.closes_when_idle(),
    ],
    ids=["small chunks", "small writes", "one write", "slow", "close", "close idle"],
)
async def test_unusual_bytes_carry_the_same_stream(fault: Any) -> None:
    """However a stream is cut, its text is the honest one."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        honest = await client.post(server.root_url + CHAT, json=STREAM)
        server.behave(CHAT, fault)
        unusual = await client.post(server.root_url + CHAT, json=STREAM)
    assert alike(unusual.text) == alike(honest.text)


async def test_overload_is_a_status_or_the_first_event() -> None:
    """An overloaded vLLM answers 503 to JSON, and 200 with an error event to a stream."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        server.behave(CHAT, faults.overloaded(), times=2)
        whole = await client.post(server.root_url + CHAT, json=QUESTION)
        stream = await client.post(server.root_url + CHAT, json=STREAM)
        healthy = await client.post(server.root_url + CHAT, json=QUESTION)
    assert (whole.status_code, whole.text) == (503, sample("overload-rejected").body.decode())
    assert (stream.status_code, stream.content) == (200, sample("overload-rejected-stream").body)
    assert healthy.status_code == 200


async def test_a_gigantic_answer_is_valid_json() -> None:
    """A huge answer is as long as it says, and whole."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        server.behave(CHAT, faults.gigantic(3_000_000))
        answer = await client.post(server.root_url + CHAT, json=QUESTION)
    assert len(answer.content) == 3_000_000
    assert len(answer.json()["choices"][0]["message"]["content"]) > 2_990_000


async def test_it_dies_and_comes_back_on_the_same_port() -> None:
    """`stop` refuses connections; `start` serves again at the same address."""
    async with FakeVllm(["smollm2-135m"]) as server, httpx.AsyncClient(timeout=30) as client:
        assert (await client.get(f"{server.url}/models")).status_code == 200
        await server.stop()
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{server.url}/models")
        await server.start()
        assert (await client.get(f"{server.url}/models")).status_code == 200


async def test_a_key_protects_v1_alone() -> None:
    """With `--api-key`, /v1 wants it; /tokenize and /health do not."""
    async with (
        FakeVllm(["smollm2-135m"], api_key="k") as server,
        httpx.AsyncClient(timeout=30) as client,
    ):
        refused = await client.get(f"{server.url}/models")
        allowed = await client.get(f"{server.url}/models", headers={"authorization": "Bearer k"})
        open_route = await client.post(f"{server.root_url}/tokenize", json={"prompt": "x"})
    assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
    assert (allowed.status_code, open_route.status_code) == (200, 200)


async def test_it_speaks_tls(private_ca: trustme.CA) -> None:
    """With an `ssl_context` it serves https, and its faults work there too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private_ca.issue_cert("127.0.0.1").configure_cert(context)
    trusted = ssl.create_default_context()
    private_ca.configure_trust(trusted)
    async with (
        FakeVllm(["fake-chat"], ssl_context=context) as server,
        httpx.AsyncClient(verify=trusted, timeout=30) as client,
    ):
        assert server.url.startswith("https://")
        assert (await client.get(f"{server.url}/models")).status_code == 200
        server.behave(CHAT, faults.resets_after(events=2))
        with pytest.raises(httpx.ReadError):
            await client.post(server.root_url + CHAT, json={**STREAM, "model": "fake-chat"})


async def test_behaviours_queue_up(upstream: FakeVllm) -> None:
    """Behaviours with `times` are met one after the other, and then comes honesty."""
    upstream.behave(CHAT, faults.unavailable(retry_after="3"), times=1)
    upstream.behave(CHAT, faults.rate_limited(), times=2)
    async with httpx.AsyncClient(base_url=upstream.root_url, timeout=30) as client:
        answers = [await client.post(CHAT, json={"messages": [{"content": "x"}]}) for _ in "1234"]
    assert [answer.status_code for answer in answers] == [503, 429, 429, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == ["3", "2", "2", None]


async def test_a_probe_meets_no_fault(upstream: FakeVllm) -> None:
    """A GET on a POST route is answered 405, and uses up none of the behaviour's times."""
    upstream.behave(CHAT, faults.unavailable(), times=1)
    async with httpx.AsyncClient(base_url=upstream.root_url, timeout=30) as client:
        probe = await client.get(CHAT)
        call = await client.post(CHAT, json={"messages": [{"content": "x"}]})
    assert (probe.status_code, call.status_code) == (405, 503)
