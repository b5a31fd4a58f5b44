"""What was said is gone once it is deleted: conversations, their items, prompts and stored chat
completions leave no word of it in any table of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.database.tables import Base
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

SECRET = "Zanzibar-4711"
OPEN = "Nothing-to-hide"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    sections: dict[str, Any] = {}
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        template = request.getfixturevalue("postgres_template")
        sections = {"database": {"url": postgres.create_database(template)}}
    async with (
        FakeVllm(["fake-chat"]) as chat,
        InProcessGateway(
            discover=[chat.url],
            models=["fake-chat"],
            data_dir=str(tmp_path_factory.mktemp("talk")),
            **sections,
        ) as gateway,
    ):
        yield gateway


@pytest.fixture
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as http:
        yield http


async def tables_with(gateway: InProcessGateway, word: str) -> set[str]:
    """The tables that have this word in any column of any row."""
    found = set()
    async with gateway.application.state.database.read() as session:
        for table in Base.metadata.sorted_tables:
            rows = (await session.execute(select(table))).all()
            if any(word in repr(row) for row in rows):
                found.add(table.name)
    return found


async def make(http: httpx.AsyncClient, kind: str, word: str) -> str:
    """One of this kind that has the word in it; its path."""
    said = {"role": "user", "content": word}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/conversations": {"items": [said], "metadata": {"a": word}},
        "/v1/prompts": {"prompt": word},
        "/v1/chat/completions": {
            "model": "fake-chat", "messages": [said], "store": True, "metadata": {"a": word},
        },
    }  # fmt: skip
    answer = await http.post(kind, json=bodies[kind])
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    return f"{kind}/{shown.get('id') or shown['prompt_id']}"


HOLDERS = {
    "/v1/conversations": {"conversations", "conversation_items"},
    "/v1/prompts": {"prompt_versions"},
    "/v1/chat/completions": {"chat_completions", "chat_completion_metadata"},
}


@pytest.mark.parametrize("kind", HOLDERS)
async def test_nothing_of_it_stays(gateway, http, kind):
    """But what others have said does."""
    path, other = await make(http, kind, SECRET), await make(http, kind, OPEN)
    assert await tables_with(gateway, SECRET) == HOLDERS[kind]
    assert (await http.delete(path)).status_code == 200
    assert await tables_with(gateway, SECRET) == set()
    assert await tables_with(gateway, OPEN) == HOLDERS[kind]
    assert (await http.delete(other)).status_code == 200


async def test_a_deleted_item_is_gone_too(gateway, http):
    """From the conversation that stays."""
    path = await make(http, "/v1/conversations", OPEN)
    answer = await http.post(f"{path}/items", json={"items": [{"role": "user", "content": SECRET}]})
    await http.delete(f"{path}/items/{answer.json()['last_id']}")
    assert await tables_with(gateway, SECRET) == set()
    assert (await http.delete(path)).status_code == 200


@pytest.mark.parametrize("kind", ["/v1/conversations", "/v1/chat/completions"])
async def test_metadata_that_was_replaced_is_gone(gateway, http, kind):
    """It was said as well."""
    path = await make(http, kind, OPEN)
    await http.post(path, json={"metadata": {"a": SECRET}})
    assert await tables_with(gateway, SECRET)
    await http.post(path, json={"metadata": {"a": "b"}})
    assert await tables_with(gateway, SECRET) == set()
    assert (await http.delete(path)).status_code == 200
