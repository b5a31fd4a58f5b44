"""Conversations through OpenAI's own client, under both profiles."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio

HI = {"type": "message", "role": "user", "content": "hi"}
FOUND = {
    "type": "file_search_call",
    "id": "fs_1",
    "status": "completed",
    "queries": ["q"],
    "results": [
        {"file_id": "file-1", "text": "t", "score": 0.5, "filename": "f", "attributes": {}}
    ],
}


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    async with InProcessGateway(
        data_dir=str(tmp_path_factory.mktemp("talk")), server={"profile": request.param}
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


def is_llamastack(gateway: InProcessGateway) -> bool:
    return gateway.settings.server.profile == "llamastack"


async def test_the_whole_life_of_a_conversation(client: AsyncOpenAI):
    """Create, retrieve, update, delete."""
    made = await client.conversations.create(metadata={"topic": "demo"}, items=[HI])
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
    assert await client.conversations.retrieve(made.id) == made
    changed = await client.conversations.update(made.id, metadata={"topic": "other"})
    assert (changed.id, changed.created_at) == (made.id, made.created_at)
    assert changed.metadata == {"topic": "other"}
    gone = await client.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.list(made.id)


async def test_the_whole_life_of_an_item(client: AsyncOpenAI):
    """Create, retrieve, list, delete, which answers the conversation."""
    talk = await client.conversations.create()
    added = await client.conversations.items.create(
        talk.id, items=[HI, {**HI, "role": "assistant"}]
    )
    first, second = added.data
    assert (added.first_id, added.last_id, added.has_more) == (first.id, second.id, False)
    assert first.type == second.type == "message"
    assert (first.status, first.content[0].type) == ("completed", "input_text")
    assert second.content[0].type == "output_text"
    assert await client.conversations.items.retrieve(first.id, conversation_id=talk.id) == first
    pages = client.conversations.items.list(talk.id, limit=1)
    assert [item.id async for item in pages] == [second.id, first.id]
    pages = client.conversations.items.list(talk.id, limit=1, order="asc", after=first.id)
    assert [item.id async for item in pages] == [second.id]
    assert await client.conversations.items.delete(first.id, conversation_id=talk.id) == talk
    assert [item.id async for item in client.conversations.items.list(talk.id)] == [second.id]


async def test_what_is_hidden_is_shown_to_who_asks(client: AsyncOpenAI):
    """On each of the three ways to see an item."""
    talk, items = await client.conversations.create(), client.conversations.items
    asked = {"include": ["file_search_call.results"]}
    for more in ({}, asked):
        [item] = (await items.create(talk.id, items=[FOUND], **more)).data
        assert (item.results is None) == (not more)
        found = await items.retrieve("fs_1", conversation_id=talk.id, **more)
        assert found == item
        assert (await items.list(talk.id, **more)).data == [item]
        await items.delete("fs_1", conversation_id=talk.id)


async def test_lists_in_queries_are_understood_in_either_way(gateway):
    """`include=a&include=b`, and with brackets."""
    async with gateway.client() as http:
        talk = (await http.post("/v1/conversations", json={"items": [FOUND]})).json()["id"]
        for name in ("include", "include[]"):
            query = f"{name}=reasoning.encrypted_content&{name}=file_search_call.results"
            answer = await http.get(f"/v1/conversations/{talk}/items?{query}")
            assert answer.json()["data"][0]["results"]
            error = refused(await http.get(f"/v1/conversations/{talk}/items?{name}=x"), 400)
            assert error["param"] == "include[0]"


async def test_an_empty_list(gateway, client):
    """Null is OpenAI's way, an empty string LlamaStack's."""
    talk = await client.conversations.create()
    page = await client.conversations.items.list(talk.id)
    empty = "" if is_llamastack(gateway) else None
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([], empty, empty, False)


async def test_what_is_no_id_of_a_conversation(gateway, client):
    """404 here, 400 in LlamaStack."""
    error = openai.BadRequestError if is_llamastack(gateway) else openai.NotFoundError
    with pytest.raises(error):
        await client.conversations.retrieve("nonsense")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"items": [{"type": "nonsense"}]}, "items[0].type", "invalid_value"),
        ({"items": [HI] * 21}, "items", "array_above_max_length"),
        ({"items": 5}, "items", "invalid_type"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "string_above_max_length"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ],
)
async def test_what_is_wrong_is_named(gateway, body, param, code):
    """In OpenAI's words."""
    async with gateway.client() as http:
        error = refused(await http.post("/v1/conversations", json=body), 400)
    assert (error["param"], error["code"]) == (param, code)


async def test_clients_of_llamastack_0_3_find_it(gateway):
    """Under the path that they use."""
    async with gateway.client() as http:
        talk = (await http.post("/v1/openai/v1/conversations", json={})).json()
        answer = await http.get(f"/v1/openai/v1/conversations/{talk['id']}/items")
        assert answer.json()["data"] == []
