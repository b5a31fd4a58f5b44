"""Stored chat completions through OpenAI's own client, under both profiles."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from gateway.database.identifiers import now
from gateway.settings import RetentionSettings
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
SAID = [{"role": "user", "content": "hi"}]
ASKED: Any = {"model": "fake-chat", "messages": SAID}
REPLY = "The capital of France is Paris."


@pytest.fixture(scope="module")
async def server():
    async with FakeVllm(["fake-chat", "fake-chat-2"]) as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest, server: FakeVllm, tmp_path_factory: pytest.TempPathFactory
):
    async with InProcessGateway(
        discover=[server.url],
        models=["fake-chat"],
        configured=[{"id": "granite", "backends": [{"url": server.url, "model": "fake-chat-2"}]}],
        data_dir=str(tmp_path_factory.mktemp("stored")),
        server={"profile": request.param},
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway, server: FakeVllm):
    server.reset()
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
        async for one in client.chat.completions.list():
            await client.chat.completions.delete(one.id)
    server.reset()


def is_llamastack(gateway: InProcessGateway) -> bool:
    return gateway.settings.server.profile == "llamastack"


async def listed(client: AsyncOpenAI, **query: Any) -> list[str]:
    return [one.id async for one in client.chat.completions.list(**query)]


async def stored(client: AsyncOpenAI, **more: Any) -> Any:
    return await client.chat.completions.create(**{**ASKED, "store": True, **more})


async def test_an_answer_can_be_read_again(client: AsyncOpenAI):
    """As it was answered, with its metadata and the messages of the request."""
    answer = await stored(client, metadata={"topic": "demo"})
    kept = await client.chat.completions.retrieve(answer.id)
    assert kept.model_extra is not None
    assert kept.model_extra["input_messages"] == SAID
    assert kept.metadata == {"topic": "demo"}
    assert kept.choices == answer.choices
    assert (kept.usage, kept.model, kept.created) == (answer.usage, "fake-chat", answer.created)


@pytest.mark.parametrize("model", ["fake-chat", "vllm/fake-chat", "granite"])
@pytest.mark.parametrize("usage", [{}, {"stream_options": {"include_usage": True}}])
async def test_a_stream_can_be_read_again(client: AsyncOpenAI, model, usage):
    """As soon as it is over, with its usage, whether the caller saw it or not."""
    chunks = [one async for one in await stored(client, model=model, stream=True, n=2, **usage)]
    kept = await client.chat.completions.retrieve(chunks[0].id)
    assert (kept.object, kept.model, kept.id) == ("chat.completion", model, chunks[0].id)
    assert [choice.index for choice in kept.choices] == [0, 1]
    assert [choice.message.content for choice in kept.choices] == [REPLY, REPLY]
    assert [choice.finish_reason for choice in kept.choices] == ["stop", "stop"]
    assert kept.usage is not None
    assert kept.usage.completion_tokens == 16
    assert [chunk.usage is not None for chunk in chunks].count(True) == (1 if usage else 0)


async def test_what_is_kept_unasked(gateway, client):
    """Nothing is OpenAI's way, everything LlamaStack's; `store: false` is heard by both."""
    answer = await client.chat.completions.create(**ASKED)
    stream = await client.chat.completions.create(**ASKED, stream=True)
    [name] = {chunk.id async for chunk in stream}
    await client.chat.completions.create(**ASKED, store=False)
    kept = [name, answer.id] if is_llamastack(gateway) else []
    assert await listed(client) == kept


async def test_lists_are_ordered(gateway, client):
    """Oldest first is OpenAI's way, newest first LlamaStack's."""
    names = [(await stored(client)).id for _ in range(5)]
    usual = names[::-1] if is_llamastack(gateway) else names
    assert await listed(client) == usual
    assert await listed(client, order="asc", limit=2) == names
    assert await listed(client, order="desc", limit=2) == names[::-1]
    page = await client.chat.completions.list(order="asc", after=names[1], limit=2)
    assert ([one.id for one in page.data], page.has_more) == (names[2:4], True)


async def test_lists_are_filtered(client: AsyncOpenAI):
    """By model, and by pairs of metadata, all of which must be there."""
    first = (await stored(client, metadata={"a": "1", 'odd "key" [x]': "2"})).id
    second = (await stored(client, metadata={"a": "1"}, model="granite")).id
    await stored(client)
    assert await listed(client, model="granite") == [second]
    assert sorted(await listed(client, metadata={"a": "1"})) == sorted([first, second])
    assert await listed(client, metadata={"a": "1", 'odd "key" [x]': "2"}) == [first]
    assert await listed(client, metadata={"a": "2"}) == []
    await client.chat.completions.update(first, metadata={"b": "1"})
    assert await listed(client, metadata={"a": "1"}) == [second]
    assert await listed(client, metadata={"b": "1"}) == [first]


async def test_metadata_can_be_changed(client: AsyncOpenAI):
    """It is replaced; the rest stays."""
    made = await stored(client, metadata={"a": "b"})
    changed = await client.chat.completions.update(made.id, metadata={"c": "d"})
    assert (changed.metadata, changed.choices) == ({"c": "d"}, made.choices)
    assert await client.chat.completions.retrieve(made.id) == changed


async def test_a_deleted_completion_is_gone(client: AsyncOpenAI):
    """And says so."""
    name = (await stored(client, metadata={"a": "b"})).id
    gone = await client.chat.completions.delete(name)
    assert (gone.id, gone.object, gone.deleted) == (name, "chat.completion.deleted", True)
    for call in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(openai.NotFoundError):
            await call(name)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.messages.list(name)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.update(name, metadata={})


async def test_messages_have_ids(client: AsyncOpenAI):
    """Those of the request, in their order, and the answer's behind them."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    name = (await stored(client, messages=asked)).id
    messages = client.chat.completions.messages
    first, second, third = [one async for one in messages.list(name, limit=1)]
    assert [first.id, second.id, third.id] == [f"{name}-{number}" for number in range(3)]
    assert (first.role, first.content, first.content_parts) == ("system", "Be brief.", None)
    assert (second.content, len(second.content_parts or ())) == ("What is this?", 2)
    assert (third.role, third.content) == ("assistant", REPLY)
    assert [one.id async for one in messages.list(name, order="desc", limit=2)] == [
        third.id,
        second.id,
        first.id,
    ]
    page = await messages.list(name, after=first.id, limit=1)
    assert ([one.id for one in page.data], page.has_more) == ([second.id], True)


async def test_an_empty_list(gateway):
    """Null is OpenAI's way, an empty string LlamaStack's."""
    async with gateway.client() as http:
        page = (await http.get(f"{PATH}?model=nothing")).json()
    empty = "" if is_llamastack(gateway) else None
    assert page == {
        "object": "list", "data": [], "first_id": empty, "last_id": empty, "has_more": False,
    }  # fmt: skip


async def test_metadata_is_checked_where_it_is_stored(client: AsyncOpenAI, server: FakeVllm):
    """The model server isn't asked; without `store` it is none of the gateway's business."""
    before = len(server.requests_to(PATH))
    with pytest.raises(openai.BadRequestError) as caught:
        await stored(client, metadata={"a": "x" * 513})
    assert caught.value.param == "metadata.a"
    assert len(server.requests_to(PATH)) == before
    await client.chat.completions.create(**ASKED, metadata={"a": "x" * 513})


@pytest.mark.parametrize("stream", [False, True])
async def test_what_failed_is_not_stored(client: AsyncOpenAI, server: FakeVllm, stream):
    """An error, or a stream that broke off."""
    fault = faults.resets_after(events=2) if stream else faults.recorded("err-temperature")
    server.behave(PATH, fault)
    with pytest.raises(openai.APIError):
        answer = await stored(client, stream=stream)
        async for _ in answer:
            pass
    assert await listed(client) == []


@pytest.mark.one_process
async def test_what_is_too_large_is_answered_and_not_stored(gateway, client, monkeypatch):
    """And counted."""
    monkeypatch.setattr("gateway.stored_completions.recorder.MAX_KEPT_BYTES", 200)
    metric = "understudy_chat_completion_store_duration_seconds_count"
    before = gateway.metric(metric, understudy_store_outcome="too_large")
    answer = await stored(client, messages=[{"role": "user", "content": "x" * 300}])
    assert answer.choices[0].message.content == REPLY
    async for _ in await stored(client, stream=True, n=20):
        pass
    assert await listed(client) == []
    assert gateway.metric(metric, understudy_store_outcome="too_large") == before + 2


@pytest.mark.one_process
async def test_a_page_ends_before_it_is_too_large(client, monkeypatch):
    """With at least one on it, and the rest on the next."""
    names = [(await stored(client)).id for _ in range(3)]
    monkeypatch.setattr("gateway.stored_completions.service.MAX_PAGE_BYTES", 1)
    page = await client.chat.completions.list(order="asc")
    assert ([one.id for one in page.data], page.has_more) == (names[:1], True)
    assert await listed(client, order="asc") == names


@pytest.mark.parametrize("query", ["limit=0", "order=up", "metadata[a]=" + "x" * 513])
async def test_a_wrong_query_names_the_parameter(gateway, query):
    """As everywhere."""
    async with gateway.client() as http:
        error = refused(await http.get(f"{PATH}?{query}"), 400)
    assert query.startswith(error["param"].replace(".a", "[a]"))


async def test_they_go_when_their_time_is_over(gateway, client, monkeypatch):
    """The reaper's chore takes them, a bounded number at a time, and leaves the younger ones."""
    monkeypatch.setattr("gateway.stored_completions.service._EXPIRED_AT_ONCE", 2)
    service = gateway.application.agentic.stored_completions
    names = [(await stored(client, metadata={"a": "b"})).id for _ in range(3)]
    chore = gateway.application.agentic.chores()["expire chat completions"]
    assert await chore() == 0
    lifetime = service._retention.completion_seconds
    monkeypatch.setattr("gateway.stored_completions.service.now", lambda: now() + lifetime + 2)
    assert (await chore(), await listed(client)) == (2, names[2:])
    assert (await chore(), await chore(), await listed(client)) == (1, 0, [])


async def test_they_stay_where_no_time_is_set(gateway, client, monkeypatch):
    """`retention.completion_seconds: null`."""
    service = gateway.application.agentic.stored_completions
    monkeypatch.setattr(service, "_retention", RetentionSettings(completion_seconds=None))
    monkeypatch.setattr("gateway.stored_completions.service.now", lambda: 2 * now())
    name = (await stored(client)).id
    assert (await service.delete_expired(), await listed(client)) == (0, [name])
