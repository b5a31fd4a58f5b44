"""A client that asks for a model by an alias gets answers under that name, whatever the server
calls the model; nothing else of the answer is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.expect import payloads, refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import Events, Exchange, FakeVllm, Whole, faults

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
EMBED = {"model": "text-embedding-3-small", "encoding_format": "float"}
SIZES = {"small": ["hi"], "large": ["some words"] * 50}


@pytest.fixture
async def gateway(upstream: FakeVllm, embedding_upstream: FakeVllm):
    def renamed(name: str, alias: str, server: FakeVllm) -> dict[str, Any]:
        backend = {"url": server.url, "model": server.models[0]}
        return {"id": name, "aliases": [alias], "backends": [backend]}

    async with InProcessGateway(
        configured=[
            renamed("granite", "gpt-4o", upstream),
            renamed("minilm", "text-embedding-3-small", embedding_upstream),
        ]
    ) as gateway:
        yield gateway


async def exchange(
    gateway: InProcessGateway, server: FakeVllm, path: str, body: dict[str, Any]
) -> tuple[bytes, Whole | Events]:
    """The bytes that the caller got, and what the server had sent."""
    sent: list[Whole | Events] = []

    async def keeping(exchange: Exchange) -> None:
        sent.append(exchange.answer)
        await exchange.honestly()

    server.behave(path, keeping)
    async with gateway.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.content, sent[-1]


def numbers_as_text(body: bytes) -> Any:
    """JSON with every number as its digits, so that equality is equality of digits."""
    return json.loads(body, parse_float=str, parse_int=str)


@pytest.mark.parametrize("name", ["gpt-4o", "granite", "vllm/granite"])
async def test_a_plain_chat_completion(gateway, upstream, name):
    """The asked name, and no other change but the nulls that OpenAI doesn't allow."""
    got, sent = await exchange(gateway, upstream, "/v1/chat/completions", {**CHAT, "model": name})
    expected = numbers_as_text(sent.body)
    assert expected["model"] == "fake-chat"
    expected["model"] = name
    for choice in expected["choices"]:
        del choice["message"]["annotations"], choice["message"]["function_call"]
    del expected["usage"]["prompt_tokens_details"], expected["usage"]["completion_tokens_details"]
    assert numbers_as_text(got) == expected


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream(gateway, upstream, path):
    """Every event of it."""
    body = {**CHAT, "prompt": "hi", "stream": True, "stream_options": {"include_usage": True}}
    got, sent = await exchange(gateway, upstream, path, body)
    asked = b'"model":"gpt-4o"'
    assert got == b"".join(sent.events).replace(b'"model":"fake-chat"', asked)
    assert got.count(asked) == len(sent.events) - 1


async def test_a_stream_in_crlf(gateway, upstream):
    """Other line ends are no obstacle."""
    upstream.behave("/v1/chat/completions", faults.crlf_events())
    async with gateway.client() as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    *chunks, done = payloads(answer.content)
    assert done == b"[DONE]"
    assert {json.loads(chunk)["model"] for chunk in chunks} == {"gpt-4o"}


async def test_words_in_the_text_are_left_alone(gateway, upstream):
    """A reply that quotes the server's name keeps it."""
    upstream.vllm.reply = 'I am "model":"fake-chat", honestly.'
    got, _ = await exchange(gateway, upstream, "/v1/chat/completions", CHAT)
    assert json.loads(got)["choices"][0]["message"]["content"] == upstream.vllm.reply
    body = {**CHAT, "stream": True}
    got, _ = await exchange(gateway, upstream, "/v1/chat/completions", body)
    *chunks, _ = payloads(got)
    parts = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(parts) == upstream.vllm.reply


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("size", SIZES)
async def test_embeddings(gateway, embedding_upstream, size, encoding):
    """However large, every digit is the server's."""
    body = {**EMBED, "input": SIZES[size], "encoding_format": encoding}
    got, sent = await exchange(gateway, embedding_upstream, "/v1/embeddings", body)
    expected = numbers_as_text(sent.body)
    expected["model"] = "text-embedding-3-small"
    assert numbers_as_text(got) == expected


async def test_a_message(gateway, upstream):
    """Anthropic's answer has the name at its top."""
    got, sent = await exchange(gateway, upstream, "/v1/messages", {**CHAT, "max_tokens": 9})
    expected = numbers_as_text(sent.body)
    expected["model"] = "gpt-4o"
    assert numbers_as_text(got) == expected


async def test_a_streamed_message(gateway, upstream):
    """Its first event has the name inside the message; all other events are the server's bytes."""
    body = {**CHAT, "max_tokens": 50, "stream": True}
    got, sent = await exchange(gateway, upstream, "/v1/messages", body)
    assert got == b"".join(sent.events).replace(b'"model":"fake-chat"', b'"model":"gpt-4o"')
    assert got.count(b'"model":"gpt-4o"') == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"prompt": "hi"}),
        ("/v1/detokenize", {"tokens": [1]}),
        ("/v1/messages/count_tokens", {"messages": MESSAGES}),
    ],
)
async def test_answers_without_a_name_get_none(gateway, upstream, path, body):
    """Token counts say nothing of the model, and nothing is added."""
    server_path = path.replace("/v1/detokenize", "/detokenize")
    sent: list[Any] = []

    async def keeping(exchange: Exchange) -> None:
        sent.append(exchange.answer)
        await exchange.honestly()

    upstream.behave(server_path, keeping)
    async with gateway.client() as client:
        answer = await client.post(path, json={"model": "gpt-4o", **body})
    assert answer.status_code == 200
    assert answer.json() == json.loads(sent[-1].body)
    assert upstream.requests_to(server_path)[-1].json == {"model": "fake-chat", **body}


async def test_a_rerank(gateway, embedding_upstream):
    """In Jina's form with the asked name, in LlamaStack's form without any."""
    body = {"model": "minilm", "query": "a", "documents": ["b", "a"]}
    got, sent = await exchange(gateway, embedding_upstream, "/v1/rerank", body)
    assert numbers_as_text(got) == {**numbers_as_text(sent.body), "model": "minilm"}
    async with gateway.client() as client:
        answer = await client.post(
            "/v1alpha/inference/rerank", json={"model": "minilm", "query": "a", "items": ["b", "a"]}
        )
    assert [item["index"] for item in answer.json()["data"]] == [1, 0]


async def test_without_another_name_nothing_is_read_or_changed(embedding_upstream):
    """A large answer of a model under its own name passes byte for byte."""
    async with InProcessGateway(
        discover=[embedding_upstream.url], models=["fake-embedding"]
    ) as gateway:
        body = {**EMBED, "model": "fake-embedding", "input": SIZES["large"]}
        got, sent = await exchange(gateway, embedding_upstream, "/v1/embeddings", body)
    assert got == sent.body


async def test_an_error_names_the_asked_model(gateway):
    """What the gateway itself refuses is told under the caller's name too."""
    async with gateway.client() as client:
        answer = await client.post(
            "/v1/embeddings", json={**EMBED, "model": "gpt-4o", "input": "a"}
        )
    assert "'gpt-4o'" in refused(answer, 400)["message"]
