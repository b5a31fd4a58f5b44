"""The database goes away and comes back: work in the background goes on, a response that can't be
stored is an error and not a success, and what needs no database notices nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.everywhere import tables_with
from tests.support.inprocess import InProcessGateway, until
from tests.support.postgres import PostgresServer
from tests.support.responses import Follower, check_events, created, over, stored_events, text_of
from tests.support.upstream import FakeVllm, Received
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

ASKED = "What stands on the rock?"


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may kill."""
    with PostgresServer(durable=True) as server:
        yield server


@pytest.fixture
async def running(
    own_postgres: PostgresServer, upstream: FakeVllm, tmp_path: Path
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-chat"],
        data_dir=str(tmp_path),
        database={"url": own_postgres.create_database()},
        ingestion={"lease_seconds": 10},
    ) as started:
        yield started


@pytest.fixture
async def client(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


class Gate:
    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, _: Exchange) -> None:
        self.reached.set()
        await self.open.wait()


def asked(upstream: FakeVllm) -> list[Received]:
    return [one for one in upstream.requests_to(CHAT) if one.method == "POST"]


async def kill(server: PostgresServer) -> None:
    await asyncio.to_thread(server.kill)


async def start(server: PostgresServer) -> None:
    await asyncio.to_thread(server.start)


async def begun(client: httpx.AsyncClient) -> str:
    body = {"model": "fake-chat", "input": ASKED, "background": True, "stream": True}
    async with client.stream("POST", "/v1/responses", json=body) as answer:
        line = await anext(line async for line in answer.aiter_lines() if "resp_" in line)
    return "resp_" + line.partition("resp_")[2].partition('"')[0]


async def test_a_turn_outlasts_an_outage(upstream, running, client, own_postgres):
    """The database is gone for two seconds while the model speaks: it isn't asked again, and no
    event is lost."""
    # It speaks for ten seconds, so that it still does when the server has come back.
    upstream.behave(CHAT, Script(Said("One two three four. " * 30, between=0.08)))
    response_id = await begun(client)
    await until(lambda: asked(upstream), "turn")
    await asyncio.sleep(0.5)
    await kill(own_postgres)
    await asyncio.sleep(2)
    await start(own_postgres)
    shown = await over(client, response_id, within=30)
    assert text_of(shown) == "One two three four. " * 30
    events = await stored_events(running.application.state.database, response_id)
    check_events(events)
    deltas = [one["delta"] for one in events if one["type"] == "response.output_text.delta"]
    assert "".join(deltas) == text_of(shown)
    assert len(asked(upstream)) == 1


async def test_what_couldnt_be_written_is_made_again(upstream, running, client, own_postgres):
    """The database is away when the response ends: it ends once it is back."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("A lighthouse.", before=gate)))
    response_id = await begun(client)
    await asyncio.wait_for(gate.reached.wait(), 20)
    await kill(own_postgres)
    gate.open.set()
    await asyncio.sleep(1.5)
    await start(own_postgres)
    assert text_of(await over(client, response_id, within=30)) == "A lighthouse."
    check_events(await stored_events(running.application.state.database, response_id))


async def test_what_cant_be_stored_is_no_success(upstream, running, client, own_postgres):
    """JSON is a 503; a stream ends as failed. Neither is there afterwards."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("A lighthouse.", before=gate)))
    body = {"model": "fake-chat", "input": ASKED}
    plain = asyncio.create_task(client.post("/v1/responses", json=body))
    wanted = {**body, "stream": True}
    async with client.stream("POST", "/v1/responses", json=wanted) as answer:
        await until(lambda: len(asked(upstream)) == 2, "turns")
        await kill(own_postgres)
        gate.open.set()
        events = await Follower(answer).to_the_end()
    check_events(events)
    assert events[-1]["type"] == "response.failed"
    assert "database" in events[-1]["response"]["error"]["message"]
    refused = await plain
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "database_unavailable"
    await start(own_postgres)
    assert await tables_with(running.application.state.database, ASKED) == []


async def test_what_needs_no_database_notices_nothing(upstream, client, own_postgres):
    """Chat is relayed, and a response that isn't stored is made, while a stored one is refused
    before its stream begins or as soon as it is to be stored."""
    upstream.behave(CHAT, Script(Said("A lighthouse.")))
    await kill(own_postgres)
    chat = {"model": "fake-chat", "messages": [{"role": "user", "content": ASKED}]}
    assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
    made = await created(client, store=False)
    assert text_of(made) == "A lighthouse."
    body = {"model": "fake-chat", "input": ASKED, "background": True}
    for options in ({}, {"stream": True}):
        answer = await client.post("/v1/responses", json={**body, **options})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "database_unavailable"
    await start(own_postgres)


async def test_a_follower_is_told_and_comes_back(upstream, running, client, own_postgres):
    """Its stream ends with an error whose number it can go on from."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("A lighthouse.", before=gate)))
    body: dict[str, Any] = {"model": "fake-chat", "input": ASKED, "background": True}
    async with client.stream("POST", "/v1/responses", json={**body, "stream": True}) as answer:
        follower = Follower(answer)
        await follower.until("response.in_progress")
        await asyncio.wait_for(gate.reached.wait(), 20)
        await kill(own_postgres)
        error = await follower.until("error")
        assert await follower.next() is None
    assert error["code"] == "database_unavailable"
    await start(own_postgres)
    gate.open.set()
    seen = follower.events[:-1]
    path = f"/v1/responses/{seen[0]['response']['id']}"
    path += f"?stream=true&starting_after={error['sequence_number']}"
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200, await answer.aread()
        check_events([*seen, *await Follower(answer).to_the_end()])
