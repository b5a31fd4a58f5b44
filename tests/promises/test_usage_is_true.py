"""What is recorded as used is what the model servers said, whatever becomes of the requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from gateway.usage import recorder as module
from tests.support.callers import TrustingGateway
from tests.support.inprocess import until
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gateway(upstream: FakeVllm, embedding_upstream: FakeVllm, tmp_path: Path):
    async with TrustingGateway(
        discover=[upstream.url, embedding_upstream.url],
        models=["fake-chat", "fake-embedding"],
        data_dir=str(tmp_path),
    ) as made:
        yield made


async def recorded(gateway: TrustingGateway, *group_by: str) -> list[dict[str, Any]]:
    """The usage so far, of all projects."""
    await gateway.application.metering._usage.write()
    async with gateway.client() as client:
        answer = await client.get("/v1/usage", params={"group_by": list(group_by)})
    assert answer.status_code == 200, answer.text
    return [one for bucket in answer.json()["data"] for one in bucket["results"]]


async def total(gateway: TrustingGateway) -> tuple[int, int, int]:
    """Requests, input and output."""
    [one] = await recorded(gateway) or [
        dict.fromkeys(("num_model_requests", "input_tokens", "output_tokens"), 0)
    ]
    return one["num_model_requests"], one["input_tokens"], one["output_tokens"]


async def written(gateway: TrustingGateway) -> int:
    """How many requests the database knows of."""
    async with gateway.client() as client:
        page = (await client.get("/v1/usage")).json()
    return sum(one["num_model_requests"] for bucket in page["data"] for one in bucket["results"])


async def chat(client: AsyncOpenAI, content: str, **options: Any) -> Any:
    return await client.chat.completions.create(
        model="fake-chat", messages=[{"role": "user", "content": content}], **options
    )


async def test_the_sums_are_those_of_the_answers(gateway: TrustingGateway):
    """Plain, streamed with usage and without, completions, embeddings: to the token."""
    client = gateway.caller()
    requests = given = made = 0
    for number in range(3):
        usage = (await chat(client, "word " * (number + 1))).usage
        requests, given, made = (
            requests + 1,
            given + usage.prompt_tokens,
            made + usage.completion_tokens,
        )
    stream = await chat(client, "a b c", stream=True, stream_options={"include_usage": True})
    usage = [chunk.usage async for chunk in stream][-1]
    given, made = given + 2 * usage.prompt_tokens, made + 2 * usage.completion_tokens
    async for _ in await chat(client, "a b c", stream=True):
        pass  # the same, and nobody was told
    text = (await client.completions.create(model="fake-chat", prompt="d e")).usage
    assert text is not None
    vectors = (await client.embeddings.create(model="fake-embedding", input=["f", "g h"])).usage
    given += text.prompt_tokens + vectors.prompt_tokens
    made += text.completion_tokens
    assert await total(gateway) == (requests + 4, given, made)


async def test_a_response_counts_each_call_of_its_loop(
    upstream: FakeVllm, gateway: TrustingGateway
):
    """A response that asks its model twice has used what both calls did."""
    upstream.behave(CHAT, Script(Said("It is done.")))
    answer = await gateway.caller().responses.create(model="fake-chat", input="Hi")
    assert answer.usage is not None
    used = (answer.usage.input_tokens, answer.usage.output_tokens)
    assert await total(gateway) == (1, *used)


async def test_work_in_the_background_counts_for_who_asked(
    upstream: FakeVllm, gateway: TrustingGateway
):
    """Its project and its key, though another process may do it."""
    client = gateway.caller("red", key="key_1")
    response = await client.responses.create(model="fake-chat", input="Hi", background=True)
    async with asyncio.timeout(20):
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(0.05)
            response = await client.responses.retrieve(response.id)
    assert response.status == "completed"
    assert response.usage is not None
    [one] = await recorded(gateway, "project_id", "api_key_id", "model")
    assert (one["project_id"], one["api_key_id"], one["model"]) == ("red", "key_1", "fake-chat")
    assert one["output_tokens"] == response.usage.output_tokens


async def test_projects_keys_and_models_are_told_apart(gateway: TrustingGateway):
    """Each has its own sums, which together are the whole."""
    for project, key, times in (("red", "key_1", 1), ("red", "key_2", 2), ("blue", None, 3)):
        client = gateway.caller(project, key=key)
        for _ in range(times):
            await chat(client, "Hi")
    await gateway.caller("red", key="key_1").embeddings.create(model="fake-embedding", input="a")
    found = {
        (one["project_id"], one["api_key_id"], one["model"]): one["num_model_requests"]
        for one in await recorded(gateway, "project_id", "api_key_id", "model")
    }
    assert found == {
        ("red", "key_1", "fake-chat"): 1,
        ("red", "key_2", "fake-chat"): 2,
        ("blue", None, "fake-chat"): 3,
        ("red", "key_1", "fake-embedding"): 1,
    }
    assert (await total(gateway))[0] == 7


async def test_a_caller_that_leaves_has_used_what_came(
    upstream: FakeVllm, gateway: TrustingGateway
):
    """vLLM tells no usage then: each event was a token, the input is estimated, and the request is
    marked for it.
    """
    upstream.behave(CHAT, faults.hangs_after(6))
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with (
        gateway.client() as client,
        client.stream("POST", CHAT, json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data:") and len(json.loads(line[5:])["choices"]):
                break
        await asyncio.sleep(0.2)
    await until(lambda: gateway.application.metering._usage._noted, "the request's end")
    [one] = await recorded(gateway)
    assert one["num_estimated_requests"] == one["num_model_requests"] == 1
    assert one["output_tokens"] == 6
    assert 10 <= one["input_tokens"] <= 60
    assert one["num_failed_requests"] == 0


async def test_a_stream_that_breaks_off_has_used_what_came(
    upstream: FakeVllm, gateway: TrustingGateway
):
    """It is a failed request, with its tokens."""
    upstream.behave(CHAT, faults.closes_after(5))
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with gateway.client() as client:
        answer = await client.post(CHAT, json=body)
    assert answer.status_code == 200
    [one] = await recorded(gateway)
    assert one["num_failed_requests"] == one["num_estimated_requests"] == 1
    assert one["output_tokens"] == 5


async def test_a_refusal_of_the_server_has_used_nothing(
    upstream: FakeVllm, gateway: TrustingGateway
):
    """It is a failed request without tokens."""
    upstream.behave(CHAT, faults.overloaded())
    async with gateway.client() as client:
        answer = await client.post(
            CHAT, json={"model": "fake-chat", "messages": [{"role": "user", "content": "Hi"}]}
        )
    assert answer.status_code >= 429
    [one] = await recorded(gateway)
    assert (one["num_model_requests"], one["num_failed_requests"]) == (1, 1)
    assert (one["input_tokens"], one["output_tokens"]) == (0, 0)


async def test_usage_is_written_within_seconds_and_at_the_end(
    upstream: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process that ends in order loses nothing; one that is killed loses a few seconds."""
    assert module.FLUSH_SECONDS <= 5
    sections: dict[str, Any] = {"discover": [upstream.url], "data_dir": str(tmp_path)}
    async with TrustingGateway(**sections, models=["fake-chat"]) as gateway:
        await chat(gateway.caller(), "Hi")
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.2)
    async with TrustingGateway(**sections, models=["fake-chat"]) as gateway:
        assert (await total(gateway))[0] == 1
        await chat(gateway.caller(), "Hi")
        async with asyncio.timeout(20):
            while await written(gateway) < 2:
                await asyncio.sleep(0.05)


async def test_usage_waits_for_a_database_that_is_away(
    upstream: FakeVllm, gateway: TrustingGateway, monkeypatch: pytest.MonkeyPatch
):
    """What could not be written is written with the next, once."""
    recorder = gateway.application.metering._usage
    database = recorder._database
    away = Away()
    monkeypatch.setattr(recorder, "_database", away)
    await chat(gateway.caller(), "Hi")
    await recorder.write()
    await chat(gateway.caller(), "Hi")
    await recorder.write()
    assert away.asked == 2
    monkeypatch.setattr(recorder, "_database", database)
    assert (await total(gateway))[0] == 2


class Away:
    def __init__(self) -> None:
        self.asked = 0

    def begin(self) -> Any:
        self.asked += 1
        raise OSError("away")


async def test_usage_of_an_alias_is_the_models(upstream: FakeVllm, tmp_path: Path):
    """A model that is asked for by two names is one model."""
    models = [
        {
            "id": "granite",
            "aliases": ["gpt-4o"],
            "backends": [{"url": upstream.url, "model": "fake-chat"}],
        }
    ]
    async with TrustingGateway(
        configured=models, models=["granite"], data_dir=str(tmp_path)
    ) as gateway:
        client = gateway.caller()
        for name in ("granite", "gpt-4o"):
            await client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "Hi"}]
            )
        await client.responses.create(model="gpt-4o", input="Hi")
        found = await recorded(gateway, "model")
    assert [(one["model"], one["num_model_requests"]) for one in found] == [("granite", 3)]
