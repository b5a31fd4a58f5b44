"""Every answer is what the published types say: OpenAI's as its SDK has them, with no null where
OpenAI's schema allows none, and LlamaStack's for what LlamaStack has beside it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, create_model

from tests.support.expect import payloads, refused
from tests.support.inprocess import InProcessGateway
from tests.support.samples import names, sample
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

CHAT_PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
NEVER_NULL = {
    "annotations",
    "function_call",
    "tool_calls",
    "prompt_tokens_details",
    "completion_tokens_details",
    "audio_tokens",
    "cached_tokens",
    "reasoning_tokens",
}
"""Optional in OpenAI's schemas, but not nullable: either there with a value, or not there."""


@pytest.fixture(scope="module")
async def servers():
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm(["fake-embedding"], kind="embedding") as embedding,
    ):
        yield chat, embedding


@pytest.fixture(scope="module")
async def gateway(servers):
    async with InProcessGateway(
        discover=[server.url for server in servers], models=["fake-chat", "fake-embedding"]
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway, servers):
    async with gateway.client() as client:
        yield client
    for server in servers:
        server.reset()


def nulls(value: Any, path: str = "") -> set[str]:
    """The paths of all nulls in a JSON value."""
    if isinstance(value, dict):
        return {found for key, item in value.items() for found in nulls(item, f"{path}.{key}")}
    if isinstance(value, list):
        return {found for item in value for found in nulls(item, path)}
    return {path} if value is None else set()


def fits(kind: type[BaseModel], value: Any) -> Any:
    """The value as this type, checked strictly; no null where none is allowed."""
    wrong = {path for path in nulls(value) if path.rpartition(".")[2] in NEVER_NULL}
    assert wrong == set()
    return kind.model_validate(value, strict=True)


async def ok(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_chat_completion(client):
    """All that OpenAI requires is there."""
    body = await ok(client, CHAT_PATH, CHAT)
    answer = fits(ChatCompletion, body)
    assert body.keys() >= {"id", "object", "created", "model", "choices", "usage"}
    [choice] = body["choices"]
    assert choice.keys() >= {"index", "message", "finish_reason", "logprobs"}
    assert choice["message"].keys() >= {"role", "content", "refusal"}
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


RECORDED_CHATS = [
    name
    for name in names()
    if name.startswith(("chat-", "tools-", "flags-"))
    and sample(name).status == 200
    and sample(name).path == CHAT_PATH
    and b"chat.completion" in sample(name).body
    and name != "chat-stream-continuous-usage"  # who asks for vLLM's own form gets it, nulls too
]


@pytest.mark.parametrize("name", RECORDED_CHATS)
async def test_recorded_chats_fit_as_well(client, servers, name):
    """Tool calls, reasoning, log probabilities and whatever else was recorded from vLLM 0.32."""
    servers[0].behave(CHAT_PATH, faults.recorded(name))
    stream = b"chat.completion.chunk" in sample(name).body
    answer = await client.post(CHAT_PATH, json={**CHAT, "stream": stream})
    assert answer.status_code == 200
    if stream:
        *chunks, done = payloads(answer.content)
        assert done == b"[DONE]"
        for chunk in chunks:
            fits(ChatCompletionChunk, json.loads(chunk))
    else:
        fits(ChatCompletion, answer.json())


@pytest.mark.parametrize("usage", [False, True])
async def test_the_chunks_of_a_stream(client, usage):
    """Each is a chunk; the usage event is there exactly when it was asked for."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": usage}}
    answer = await client.post(CHAT_PATH, json=body)
    *data, done = payloads(answer.content)
    assert done == b"[DONE]"
    chunks = [json.loads(one) for one in data]
    for chunk in chunks:
        fits(ChatCompletionChunk, chunk)
        assert chunk.keys() >= {"id", "object", "created", "model", "choices"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk for chunk in chunks if not chunk["choices"]] == (chunks[-1:] if usage else [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_completion(client, stream):
    """The text completion of old, whole and in pieces."""
    answer = await client.post(
        "/v1/completions", json={"model": "fake-chat", "prompt": "hi", "stream": stream}
    )
    if stream:
        *chunks, _ = payloads(answer.content)
        for data in chunks:
            chunk = json.loads(data)
            for choice in chunk["choices"]:  # null until the last one, as in OpenAI's own streams
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            fits(Completion, chunk)
    else:
        body = answer.json()
        fits(Completion, body)
        assert body["object"] == "text_completion"
        assert body.keys() >= {"id", "object", "created", "model", "choices", "usage"}


@pytest.mark.parametrize("texts", [1, 60], ids=["small", "large"])
async def test_embeddings(client, texts):
    """In order, each with its index."""
    body = await ok(
        client, "/v1/embeddings", {"model": "fake-embedding", "input": ["a word"] * texts}
    )
    answer = CreateEmbeddingResponse.model_validate(body, strict=True)
    assert [item.index for item in answer.data] == list(range(texts))
    assert {len(item.embedding) for item in answer.data} == {384}
    assert answer.usage.total_tokens >= answer.usage.prompt_tokens > 0


async def test_models(client):
    """OpenAI's four fields, and LlamaStack's beside them."""
    body = (await client.get("/v1/models")).json()
    assert body.keys() == {"object", "data"}
    assert body["object"] == "list"
    for model in body["data"]:
        fits(Model, model)
        assert model.keys() >= {"id", "object", "created", "owned_by", "custom_metadata"}
        assert model["identifier"] == model["id"]
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model


async def test_an_error(client):
    """Four keys, and nothing else."""
    error = refused(await client.post(CHAT_PATH, json={}), 400)
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, CHAT),
        (CHAT_PATH, {**CHAT, "stream": True}),
        (CHAT_PATH, {}),
        ("/v1/embeddings", {"model": "fake-embedding", "input": "a"}),
        ("/v1/nothing", {}),
    ],
)
async def test_every_answer_has_openai_s_headers(client, path, body):
    """Whatever the answer is."""
    answer = await client.post(path, json=body)
    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["openai-version"] == "2020-10-01"


# -- LlamaStack's ----------------------------------------------------------------------------------


def shape(name: str, **fields: Any) -> type[BaseModel]:
    """A strict model that allows no other field."""
    return create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)


HEALTH = shape("Health", status=(str, ...))
PROVIDER = shape(
    "Provider",
    api=(str, ...),
    provider_id=(str, ...),
    provider_type=(str, ...),
    config=(dict, ...),
    health=(dict, ...),
)
ROUTE = shape("Route", route=(str, ...), method=(str, ...), provider_types=(list[str], ...))
RANKED = shape("Ranked", index=(int, ...), relevance_score=(float, ...))


@pytest.mark.parametrize("prefix", ["/v1", "/v1alpha/admin"])
async def test_llamastack_s_inspection(client, prefix):
    """Health, version, providers and routes as LlamaStack's client reads them."""

    async def get(path: str) -> Any:
        answer = await client.get(prefix + path)
        assert answer.status_code == 200
        return answer.json()

    assert HEALTH.model_validate(await get("/health")).status == "OK"
    assert (await get("/version")).keys() == {"version"}
    providers = (await get("/providers"))["data"]
    assert len(providers) == 2
    for provider in providers:
        fits(PROVIDER, provider)
        assert (provider["api"], provider["provider_type"]) == ("inference", "remote::vllm")
        assert provider["health"].keys() == {"status", "message"}
        assert await get(f"/providers/{provider['provider_id']}") == provider
    routes = (await get("/inspect/routes"))["data"]
    for route in routes:
        fits(ROUTE, route)
    assert {"route": CHAT_PATH, "method": "POST", "provider_types": ["remote::vllm"]} in routes


async def test_routes_can_be_filtered(client):
    """By the version of the API."""
    alpha = (await client.get("/v1/inspect/routes?api_filter=v1alpha")).json()["data"]
    assert alpha
    assert all(route["route"].startswith("/v1alpha/") for route in alpha)
    assert (await client.get("/v1/inspect/routes?api_filter=deprecated")).json()["data"] == []


async def test_llamastack_s_rerank(client):
    """Best first, as many as were asked for, of texts and of text parts."""
    body = {
        "model": "fake-embedding",
        "query": {"type": "text", "text": "a cat"},
        "items": ["a house", {"type": "text", "text": "a cat"}, "a dog"],
        "max_num_results": 2,
    }
    answer = await ok(client, "/v1alpha/inference/rerank", body)
    assert answer.keys() == {"data"}
    ranked = [RANKED.model_validate(item) for item in answer["data"]]
    assert ranked[0].index == 1
    assert len(ranked) == 2
    assert ranked[0].relevance_score >= ranked[1].relevance_score


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_jina_s_and_cohere_s_rerank(client, path):
    """The form that vLLM answers in."""
    body = {"model": "fake-embedding", "query": "a cat", "documents": ["a house", "a cat"]}
    answer = await ok(client, path, body)
    assert [result["index"] for result in answer["results"]] == [1, 0]
