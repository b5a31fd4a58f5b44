"""A key that may use some models finds no other one: it is as if the others weren't there, at once
and in the background, wherever a request names a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import gateway.app as composition
from tests.support.inprocess import InProcessGateway
from tests.support.keys import bearer, make_key
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

SAID = [{"role": "user", "content": "Hello"}]
GUARD = "Llama-Guard-3-8B"


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm(["mine", "theirs"]) as chat,
            FakeVllm(["my-embedding", "their-embedding"], kind="embedding") as embedding,
            FakeVllm([GUARD], reply="safe") as guard,
            InProcessGateway(
                discover=[chat.url, embedding.url, guard.url],
                configured=[
                    {"id": "their-rerank", "kind": "rerank", "backends": [{"url": chat.url}]}
                ],
                models=["mine", "theirs", "my-embedding", "their-embedding", GUARD],
                data_dir=str(tmp_path_factory.mktemp("models")),
                identity={"mode": "api_keys"},
                ingestion={"attach_wait_seconds": 20},
            ) as started,
        ):
            yield started


@pytest.fixture
async def client(gateway) -> AsyncIterator[httpx.AsyncClient]:
    """With a key for the first chat model and the first embedding model."""
    key = await make_key(gateway, models=["mine", "my-embedding"])
    async with gateway.client(headers=bearer(key)) as one:
        yield one


async def test_models_that_may_not_be_used_are_not_listed(client):
    """Neither in OpenAI's list nor in Anthropic's, and not by their ids."""
    listed = (await client.get("/v1/models")).json()["data"]
    assert {one["id"] for one in listed} == {"mine", "my-embedding"}
    for_anthropic = await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert {one["id"] for one in for_anthropic.json()["data"]} == {"mine", "my-embedding"}
    assert (await client.get("/v1/models/mine")).status_code == 200
    assert (await client.get("/v1/models/theirs")).status_code == 404


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "theirs", "messages": SAID}),
    ("/v1/chat/completions", {"model": "vllm/theirs", "messages": SAID}),
    ("/v1/chat/completions", {"model": "theirs", "messages": SAID, "stream": True}),
    ("/v1/openai/v1/chat/completions", {"model": "theirs", "messages": SAID}),
    ("/v1/completions", {"model": "theirs", "prompt": "x"}),
    ("/v1/messages", {"model": "theirs", "messages": SAID, "max_tokens": 5}),
    ("/v1/embeddings", {"model": "their-embedding", "input": "x"}),
    ("/v1/chat/completions", {"model": "their-embedding", "messages": SAID}),
    ("/v1/rerank", {"model": "their-rerank", "query": "x", "documents": ["x"]}),
    ("/v1/tokenize", {"model": "theirs", "prompt": "x"}),
    ("/v1/responses", {"model": "theirs", "input": "x"}),
    ("/v1/responses", {"model": "theirs", "input": "x", "stream": True}),
    ("/v1/responses", {"model": "theirs", "input": "x", "background": True}),
    ("/v1/responses/compact", {"model": "theirs", "input": "x"}),
    ("/v1/responses/input_tokens", {"model": "theirs", "input": "x"}),
    ("/v1/moderations", {"model": GUARD, "input": "x"}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_a_model_that_may_not_be_used_is_not_there(gateway, client, path, body):
    """The same answer, byte for byte, as for a model that nobody has."""
    forbidden = await client.post(path, json=body)
    unknown = await client.post(path, json={**body, "model": "nobodys"})
    assert forbidden.status_code == unknown.status_code == 404
    assert forbidden.text.replace(body["model"], "nobodys") == unknown.text
    if path != "/v1/messages":
        assert forbidden.json()["error"]["code"] == "model_not_found"


async def test_models_named_for_stores_must_be_the_callers_too(client):
    """The embedding model, the one that writes context, and the one that ranks."""
    store = (
        await client.post("/v1/vector_stores", json={"embedding_model": "my-embedding"})
    ).json()
    only_one = await client.post("/v1/vector_stores", json={})  # the only one of the caller's
    assert only_one.json()["metadata"] is not None
    answer = await client.post("/v1/vector_stores", json={"embedding_model": "their-embedding"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_found")
    file = (
        await client.post(
            "/v1/files", files={"file": ("a.txt", b"a")}, data={"purpose": "assistants"}
        )
    ).json()
    contextual = {"type": "contextual", "contextual": {"model_id": "theirs"}}
    answer = await client.post(
        f"/v1/vector_stores/{store['id']}/files",
        json={"file_id": file["id"], "chunking_strategy": contextual},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_found")
    ranking = {"ranker": "neural", "model": "their-rerank"}
    for options in (ranking, {"ranker": "neural"}):
        answer = await client.post(
            f"/v1/vector_stores/{store['id']}/search",
            json={"query": "x", "ranking_options": options},
        )
        assert answer.status_code in (400, 404), answer.text


async def test_shields_are_no_way_around(client):
    """A guard model is a shield by its own name, for those who may use it."""
    listed = (await client.get("/v1/shields")).json()["data"]
    assert GUARD not in {one["identifier"] for one in listed}
    run = {"shield_id": GUARD, "messages": SAID}
    assert (await client.post("/v1/safety/run-shield", json=run)).status_code in (400, 404)
    registered = {"shield_id": "s", "provider_shield_id": GUARD}
    assert (await client.post("/v1/shields", json=registered)).status_code == 400
    guarded = {"model": "mine", "input": "x", "guardrails": [GUARD]}
    assert (await client.post("/v1/responses", json=guarded)).status_code == 400


async def batch_over(client: httpx.AsyncClient, models: list[str]) -> Any:
    lines = [
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": model, "messages": SAID},
            }
        )
        for number, model in enumerate(models)
    ]
    file = await client.post(
        "/v1/files",
        files={"file": ("a.jsonl", "\n".join(lines).encode())},
        data={"purpose": "batch"},
    )
    wanted = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    batch = (await client.post("/v1/batches", json=wanted)).json()
    async with asyncio.timeout(20):
        while batch["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.1)
            batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
    return batch


async def test_batches_are_bound_to_their_creators_models(client):
    """Though a worker does them, long after the request."""
    batch = await batch_over(client, ["mine", "theirs"])
    assert batch["status"] == "failed"
    assert [one["code"] for one in batch["errors"]["data"]] == ["model_not_found"]
    batch = await batch_over(client, ["mine"])
    assert batch["status"] == "completed"
    assert batch["request_counts"]["completed"] == 1


async def test_background_responses_go_on_with_their_creators_models(gateway, client):
    """What a worker makes is made with what the caller may use."""
    made = await client.post(
        "/v1/responses", json={"model": "mine", "input": "x", "background": True}
    )
    async with asyncio.timeout(20):
        shown = made.json()
        while shown["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.05)
            shown = (await client.get(f"/v1/responses/{shown['id']}")).json()
    assert shown["status"] == "completed"


async def test_a_key_without_models_may_use_all(gateway):
    """And one of another project with the same models is no different."""
    key = await make_key(gateway)
    async with gateway.client(headers=bearer(key)) as one:
        assert len((await one.get("/v1/models")).json()["data"]) == 6
        answer = await one.post("/v1/chat/completions", json={"model": "theirs", "messages": SAID})
    assert answer.status_code == 200
