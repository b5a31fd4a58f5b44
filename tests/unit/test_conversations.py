"""Conversations as a service and as others use them, on each database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.conversations import repository
from gateway.conversations.repository import ConversationRepository
from gateway.conversations.schemas import CreateConversation, CreateItems, UpdateConversation
from gateway.conversations.service import ConversationService
from gateway.database.engine import Database
from gateway.database.paging import PageRequest
from gateway.database.tables import ConversationItemRow, ConversationRow
from gateway.errors import InvalidRequest, NotFound
from gateway.identity.principal import Principal
from gateway.items.parsing import user_message
from gateway.profile import profile_of

pytestmark = pytest.mark.anyio

ME = Principal()
OTHER = Principal(project="other")
NOTHING: frozenset[Any] = frozenset()


@pytest.fixture
def service(database: Database) -> ConversationService:
    return ConversationService(database, profile_of("openai"))


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


async def made(service: ConversationService, *items: Any, principal: Principal = ME) -> str:
    return (await service.create(principal, CreateConversation(items=[*items]))).id


async def add(service: ConversationService, name: str, *items: Any) -> list[dict[str, Any]]:
    return (await service.create_items(ME, name, CreateItems(items=[*items]), NOTHING)).data


async def listed(service: ConversationService, name: str, **page: Any) -> list[dict[str, Any]]:
    return (await service.list_items(ME, name, PageRequest(**page), NOTHING)).data


async def test_items_stay_in_their_order(service):
    """Those of one request and those of the next; newest first unless asked."""
    name = await made(service, said("a"), said("b"))
    await add(service, name, said("c"), said("d"))
    assert texts(await listed(service, name, order="asc")) == ["a", "b", "c", "d"]
    assert texts(await listed(service, name)) == ["d", "c", "b", "a"]


async def test_pages_follow_a_cursor(service):
    """Until there is no more."""
    name = await made(service, *(said(str(number)) for number in range(5)))
    first = await service.list_items(ME, name, PageRequest(limit=3), NOTHING)
    assert (texts(first.data), first.has_more) == (["4", "3", "2"], True)
    rest = await service.list_items(ME, name, PageRequest(limit=3, after=first.last_id), NOTHING)
    assert (texts(rest.data), rest.has_more) == (["1", "0"], False)


async def test_an_item_of_the_conversation_is_not_added_again(service):
    """Nor anything that came with it."""
    name = await made(service, said("a", id="msg_a"))
    with pytest.raises(InvalidRequest) as caught:
        await add(service, name, said("b"), said("new", id="msg_a"))
    assert caught.value.param == "items[1].id"
    with pytest.raises(InvalidRequest):
        await add(service, name, {"type": "item_reference", "id": "msg_a"})
    assert texts(await listed(service, name)) == ["a"]


async def test_an_item_of_another_conversation_is_copied(service):
    """By its id, or whole; the copy is its own."""
    first = await made(service, said("a", id="msg_a"), said("b", id="msg_b"))
    second = await made(service, {"type": "item_reference", "id": "msg_a"})
    await add(service, second, {"id": "msg_b"})
    assert texts(await listed(service, second, order="asc")) == ["a", "b"]
    await service.delete(ME, first)
    assert texts(await listed(service, second, order="asc")) == ["a", "b"]


async def test_a_reference_to_nothing_adds_nothing(service):
    """And is named."""
    name = await made(service)
    with pytest.raises(NotFound) as caught:
        await add(service, name, said("a"), {"type": "item_reference", "id": "msg_nope"})
    assert caught.value.param == "items[1].id"
    with pytest.raises(NotFound):
        await add(service, name, {"type": "item_reference", "id": "a\u00e9"})
    with pytest.raises(InvalidRequest):
        await add(service, name, {"type": "item_reference", "id": "a\x00"})
    assert await listed(service, name) == []


async def test_one_reference_twice_is_one_too_many(service):
    """An item is in a conversation once."""
    await made(service, said("a", id="msg_a"))
    with pytest.raises(InvalidRequest):
        await made(service, {"id": "msg_a"}, {"id": "msg_a"})


async def test_twenty_items_at_once(service):
    """And no more."""
    name = await made(service, *(said("a") for _ in range(20)))
    with pytest.raises(InvalidRequest) as caught:
        await add(service, name, *(said("a") for _ in range(21)))
    assert (caught.value.param, caught.value.code) == ("items", "array_above_max_length")


async def test_metadata_is_replaced(service):
    """Null takes it away."""
    name = (await service.create(ME, CreateConversation(metadata={"a": "b"}))).id
    await service.update(ME, name, UpdateConversation(metadata={"c": "d"}))
    assert (await service.retrieve(ME, name)).metadata == {"c": "d"}
    await service.update(ME, name, UpdateConversation(metadata=None))
    assert (await service.retrieve(ME, name)).metadata == {}


async def test_a_deleted_conversation_leaves_nothing(service, database):
    """No item, and no conversation; nobody else's."""
    other = await made(service, said("b"))
    name = await made(service, said("a"))
    await service.delete(ME, name)
    async with database.read() as session:
        rows = (await session.execute(select(ConversationRow.id))).scalars().all()
        items = (await session.execute(select(ConversationItemRow.conversation_id))).scalars().all()
    assert ([*rows], [*items]) == ([other], [other])
    with pytest.raises(NotFound):
        await service.delete(ME, name)


async def test_a_deleted_item_is_gone(service):
    """The answer is the conversation."""
    name = await made(service, said("a", id="msg_a"), said("b"))
    assert (await service.delete_item(ME, name, "msg_a")).id == name
    assert texts(await listed(service, name)) == ["b"]
    with pytest.raises(NotFound):
        await service.delete_item(ME, name, "msg_a")
    with pytest.raises(NotFound):
        await service.retrieve_item(ME, name, "msg_a", NOTHING)


async def test_requests_at_once_lose_nothing(service):
    """And of those that add the same item, one does."""
    name = await made(service)
    await asyncio.gather(*(add(service, name, said(str(number))) for number in range(10)))
    assert len(await listed(service, name)) == 10
    same = [add(service, name, said("x", id="msg_x")) for _ in range(5)]
    outcomes = await asyncio.gather(*same, return_exceptions=True)
    assert sum(isinstance(one, InvalidRequest) for one in outcomes) == 4


# What responses use.


async def test_the_newest_items_are_read_oldest_first(service, database):
    """As a model needs them."""
    name = await made(service, *(said(str(number)) for number in range(6)))
    async with database.read() as session:
        conversations = ConversationRepository(session)
        assert texts(await conversations.items("default", name, 4)) == ["2", "3", "4", "5"]
        assert await conversations.items("other", name, 4) == []


async def test_what_is_appended_again_is_replaced(service, database):
    """It stays where it was; what is new comes behind."""
    name = await made(service, said("a", id="msg_a"), said("b"))
    newer = {**user_message("A"), "id": "msg_a"}
    async with database.begin() as session:
        assert await ConversationRepository(session).append(
            "default", name, [user_message("c"), newer]
        )
    assert texts(await listed(service, name, order="asc")) == ["A", "b", "c"]


async def test_nothing_is_appended_to_what_is_not_there(service, database):
    """A conversation that was deleted meanwhile, or somebody else's."""
    name = await made(service)
    async with database.begin() as session:
        conversations = ConversationRepository(session)
        assert not await conversations.append("other", name, [user_message("a")])
        assert not await conversations.append("default", "conv_nope", [user_message("a")])
        assert await conversations.exists("default", name)
        assert not await conversations.exists("other", name)
        assert not await conversations.exists("default", "a\x00")
    async with database.read() as session:
        assert (await session.execute(select(func.count(ConversationItemRow.id)))).scalar() == 0


async def test_items_are_found_in_any_conversation_of_the_project(service, database):
    """The newest where there are several."""
    await made(service, said("old", id="msg_a"))
    await made(service, said("new", id="msg_a"))
    await made(service, said("theirs", id="msg_a"), principal=OTHER)
    async with database.read() as session:
        conversations = ConversationRepository(session)
        found = await conversations.find_item("default", "msg_a")
        assert found is not None
        assert texts([found]) == ["new"]
        assert await conversations.find_item("default", "msg_b") is None
        assert await conversations.find_item("default", "a\x00") is None


async def test_a_conversation_is_bounded(service, database, monkeypatch):
    """Past the bound nothing is added; replacing goes on."""
    monkeypatch.setattr(repository, "MAX_ITEMS", 2)
    name = await made(service, said("a", id="msg_a"), said("b"))
    with pytest.raises(InvalidRequest) as caught:
        await add(service, name, said("c"))
    assert caught.value.code == "conversation_full"
    async with database.begin() as session:
        newer = {**user_message("A"), "id": "msg_a"}
        assert await ConversationRepository(session).append("default", name, [newer])


async def test_what_is_no_id_of_a_conversation(database):
    """404 is OpenAI's way here, 400 LlamaStack's; an id that could be one is 404 in both."""
    for profile, error in (("openai", NotFound), ("llamastack", InvalidRequest)):
        service = ConversationService(database, profile_of(profile))
        with pytest.raises(error):
            await service.retrieve(ME, "nonsense")
        with pytest.raises(NotFound):
            await service.retrieve(ME, "conv_" + "0" * 48)
