"""What is deleted is nowhere any more, and what was not to be stored never was anywhere: every
table of the database is looked through for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway.app
from gateway.database.engine import Database
from tests.support.everywhere import files_with, tables_with
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.responses import Follower, created, over, text_of
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

ASKED = "What stands on the rock?"
TOLD = "Be a lighthouse keeper."
LAMP = "The lamp turns at night."
ANSWER = "A lighthouse, it seems."
WORDS = (ASKED, TOLD, "lighthouse", "mutters")


@pytest.fixture
async def running(
    database_settings: Any,
    upstream: FakeVllm,
    embedding_upstream: FakeVllm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[InProcessGateway]:
    monkeypatch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
    async with InProcessGateway(
        discover=[upstream.url, embedding_upstream.url],
        models=["fake-chat", "fake-embedding"],
        data_dir=str(tmp_path),
        database={"url": database_settings.url},
    ) as started:
        shelf = Shelf(started.application.state.database, started.application.state.index)
        await shelf.open()
        await shelf.put("file-1", [LAMP])
        yield started


@pytest.fixture
def database(running: InProcessGateway) -> Database:
    return running.application.state.database


@pytest.fixture
async def client(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


def speak(upstream: FakeVllm) -> None:
    search = Said(calls=[("file_search", {"query": "lighthouse"})])
    upstream.behave(CHAT, Script(search, Said(ANSWER, reasoning="It mutters.")))


BODY: dict[str, Any] = {
    "input": ASKED,
    "instructions": TOLD,
    "metadata": {"keeper": "lighthouse"},
    "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
}


async def streamed(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    wanted = {"model": "fake-chat", "stream": True, **body}
    async with client.stream("POST", "/v1/responses", json=wanted) as answer:
        events = await Follower(answer).to_the_end()
    return dict(events[-1]["response"])


async def nowhere(database: Database, *words: str) -> None:
    for word in words:
        assert await tables_with(database, word) == [], word


@pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_deleted_response_is_gone_with_all_it_held(
    upstream, client, database, background, stream
):
    """Its request, its items, where they are found, and its events."""
    speak(upstream)
    make = streamed if stream else created
    made = await make(client, **BODY, background=background)
    shown = await over(client, made["id"])
    assert text_of(shown) == ANSWER
    items = [item["id"] for item in shown["output"]]
    tables = {"responses", "response_items"}
    if background and stream:
        tables.add("response_events")
    assert set(await tables_with(database, made["id"])) == tables
    path = f"/v1/responses/{made['id']}"
    answer = await client.delete(path)
    assert answer.json() == {"id": made["id"], "object": "response", "deleted": True}
    await nowhere(database, made["id"], *items, *WORDS)
    for method, wanted in (
        ("GET", path),
        ("GET", f"{path}?stream=true"),
        ("GET", f"{path}/input_items"),
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
    ):
        assert (await client.request(method, wanted)).status_code == 404, wanted
    reference = [{"type": "item_reference", "id": items[-1]}]
    refused = await client.post("/v1/responses", json={"model": "fake-chat", "input": reference})
    assert refused.status_code == 404
    after = {"model": "fake-chat", "input": "x", "previous_response_id": made["id"]}
    refused = await client.post("/v1/responses", json=after)
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        400,
        "previous_response_not_found",
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_is_not_to_be_stored_is_never_written(
    upstream, client, database, tmp_path, stream
):
    """Not even for a moment: where the database is a file, its bytes are looked through."""
    speak(upstream)
    make = streamed if stream else created
    made = await make(client, **BODY, store=False)
    assert text_of(made) == ANSWER
    await nowhere(database, made["id"], *WORDS)
    for word in WORDS:
        assert files_with(tmp_path, word) == []
    assert (await client.get(f"/v1/responses/{made['id']}")).status_code == 404
    speak(upstream)
    first = await created(client, input="Good morning.")
    assert files_with(tmp_path, "Good morning.") or not database.is_sqlite
    await created(client, **BODY, store=False, previous_response_id=first["id"])
    await nowhere(database, *WORDS[:2])


async def test_the_background_needs_a_place(client):
    """It has to be stored, so `store: false` is refused."""
    body = {"model": "fake-chat", "input": "x", "background": True, "store": False}
    answer = await client.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "background")


@pytest.mark.alone
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_deleting_one_in_the_background_ends_its_work(upstream, client, database, stream):
    """And whatever its worker still had to write is written nowhere."""
    reached = asyncio.Event()

    async def hold(_: Exchange) -> None:
        reached.set()
        await asyncio.Event().wait()

    upstream.behave(CHAT, Script(Said(ANSWER, before=hold)))
    body = {"model": "fake-chat", **BODY, "background": True, "stream": stream}
    async with client.stream("POST", "/v1/responses", json=body) as answer:
        line = await anext(line async for line in answer.aiter_lines() if "resp_" in line)
    response_id = "resp_" + line.partition("resp_")[2].partition('"')[0]
    await asyncio.wait_for(reached.wait(), 20)
    assert (await client.delete(f"/v1/responses/{response_id}")).status_code == 200
    asked = [one for one in upstream.requests_to(CHAT) if one.method == "POST"]
    await asked[-1].until_gone(within=5)
    await asyncio.sleep(0.7)
    await nowhere(database, response_id, *WORDS)


async def test_a_chain_goes_on_without_what_was_deleted(upstream, client, database):
    """Its later part stays; what was before the gap is no more known to it."""
    script = Script(Said("One."), Said("Two."), Said("Three."), Said("Four."))
    upstream.behave(CHAT, script)
    ids: list[str] = []
    for number in range(3):
        before = {"previous_response_id": ids[-1]} if ids else {}
        ids.append((await created(client, input=f"Question {number}.", **before))["id"])
    assert (await client.delete(f"/v1/responses/{ids[1]}")).status_code == 200
    await nowhere(database, "Question 1", "Two.")
    await created(client, input="Question 3.", previous_response_id=ids[2])
    said = [one["content"] for one in script.requests[-1]["messages"]]
    assert said == ["Question 2.", "Three.", "Question 3."]
    items = (await client.get(f"/v1/responses/{ids[2]}/input_items")).json()["data"]
    assert len(items) == 1
    assert (await client.get(f"/v1/responses/{ids[0]}")).status_code == 200
