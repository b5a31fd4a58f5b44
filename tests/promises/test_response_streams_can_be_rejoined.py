"""A response in the background can be followed, left and followed again, from any replica, and
cancelled from any: every reader gets each event once, in its order, and one end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import gateway.app
from tests.support.inprocess import InProcessGateway, until
from tests.support.mortal_gateway import MortalProcesses, shared_index
from tests.support.responses import Follower, check_events, created, over, settled, text_of
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm, Received
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

NAMES = ["fake-chat", "fake-embedding"]
LAMP = "The lamp of the lighthouse turns at night."
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}


class Gate:
    """Holds a turn of the model until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, _: Exchange) -> None:
        self.reached.set()
        await self.open.wait()


def asked(upstream: FakeVllm) -> list[Received]:
    """The model's turns; discovery asks with GET."""
    return [one for one in upstream.requests_to(CHAT) if one.method == "POST"]


@pytest.fixture
def sections(
    database_settings: Any,
    upstream: FakeVllm,
    embedding_upstream: FakeVllm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    monkeypatch.setattr(gateway.app, "_vector_index", shared_index)
    return {
        "discover": [upstream.url, embedding_upstream.url],
        "database": {"url": database_settings.url},
        "data_dir": str(tmp_path),
        "ingestion": {"lease_seconds": 3},
        "server": {"heartbeat_seconds": 0.2},
    }


@pytest.fixture
async def running(sections: dict[str, Any]) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(models=NAMES, **sections) as gateway:
        yield gateway


@pytest.fixture
async def client(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


@pytest.fixture
async def replica(sections: dict[str, Any], running: InProcessGateway):
    """Another gateway on the same database, which makes none itself."""
    idle = {**sections["ingestion"], "embedded_worker": False}
    async with (
        InProcessGateway(models=NAMES, **{**sections, "ingestion": idle}) as gateway,
        gateway.client() as client,
    ):
        yield client


@asynccontextmanager
async def began(client: httpx.AsyncClient, **body: Any) -> AsyncIterator[Follower]:
    """A new response in the background, followed from its beginning."""
    body = {"model": "fake-chat", "input": "Hi.", "background": True, "stream": True, **body}
    async with client.stream("POST", "/v1/responses", json=body) as answer:
        assert answer.status_code == 200
        yield Follower(answer)


@asynccontextmanager
async def rejoined(
    client: httpx.AsyncClient, response_id: str, after: int | None = None
) -> AsyncIterator[Follower]:
    query = "?stream=true" + (f"&starting_after={after}" if after is not None else "")
    async with client.stream("GET", f"/v1/responses/{response_id}{query}") as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Follower(answer)


async def read_again(client: httpx.AsyncClient, response_id: str) -> list[dict[str, Any]]:
    async with rejoined(client, response_id) as follower:
        return await follower.to_the_end()


# --------------------------------------------------------------------------- following


async def test_a_dropped_stream_goes_on_where_it_was(upstream, client, replica):
    """The work goes on meanwhile; here, and at another replica, the rest is read; and all of it
    can be read again."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("One two three four.", before=gate)))
    async with began(client) as follower:
        first = [await follower.next() for _ in range(3)]
        response_id = first[0]["response"]["id"]
        assert [one["type"] for one in first] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
    gate.open.set()
    last = first[-1]["sequence_number"]
    async with rejoined(client, response_id, last) as follower:
        here = await follower.to_the_end()
    async with rejoined(replica, response_id, last) as follower:
        assert await follower.to_the_end() == here
    check_events([*first, *here])
    shown = await over(client, response_id)
    assert here[-1]["response"] == shown
    assert await read_again(client, response_id) == [*first, *here]
    async with rejoined(client, response_id, here[-1]["sequence_number"]) as follower:
        assert await follower.to_the_end() == []
    deltas = [one["delta"] for one in here if one["type"] == "response.output_text.delta"]
    assert "".join(deltas) == text_of(shown) == "One two three four."


async def test_two_follow_at_once_and_one_of_them_elsewhere(upstream, client, replica):
    """Events are seen while the model still speaks, with comments while it is silent."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("One two three.", before=gate)))
    async with began(client) as one:
        event = await one.next()
        async with rejoined(replica, event["response"]["id"]) as other:
            await one.until("response.in_progress")
            await other.until("response.in_progress")
            await asyncio.sleep(0.5)
            gate.open.set()
            assert await one.to_the_end() == await other.to_the_end()
            assert one.pings
            assert other.pings
    check_events(one.events)


async def test_the_sdk_follows_and_comes_back(upstream, running):
    """`client.responses.retrieve(…, stream=True, starting_after=…)`."""
    upstream.behave(CHAT, Script(Said("One two three four.", between=0.05)))
    sdk = openai.AsyncOpenAI(base_url=running.base_url, api_key="none")
    stream = await sdk.responses.create(
        model="fake-chat", input="Hi.", background=True, stream=True
    )
    seen = []
    async for event in stream:
        seen.append(event)
        if len(seen) == 6:
            break
    await stream.close()
    again = await sdk.responses.retrieve(
        seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
    )
    seen += [event async for event in again]
    numbers = [event.sequence_number for event in seen]
    assert numbers == list(range(len(seen)))
    assert seen[-1].response.output_text == "One two three four."
    await sdk.close()


@pytest.mark.one_process
async def test_a_follower_sees_a_resumed_response_to_its_end(sections, upstream):
    """Its worker is killed while it is followed: numbers rise, one end, and the right object."""
    upstream.behave(CHAT, Script(Said("One two three. " * 50, between=0.05), Said("A gull.")))
    idle = {"lease_seconds": 2, "embedded_worker": False}
    made = {**sections, "ingestion": idle}
    with MortalProcesses() as processes:
        worker = processes.worker(made)
        async with (
            InProcessGateway(models=NAMES, **made) as api,
            api.client() as client,
            began(client) as follower,
        ):
            for _ in range(10):
                await follower.until("response.output_text.delta")
            worker.kill()
            processes.worker(made)
            events = await follower.to_the_end()
            check_events(events)
            shown = await over(client, events[0]["response"]["id"])
            assert events[-1]["response"] == shown
            assert text_of(shown) == "A gull."


@pytest.mark.parametrize("after", ["-1", "-5", "9" * 30, "99"])
async def test_odd_numbers_to_start_after_are_no_faults(upstream, client, after):
    """All of it, or nothing."""
    upstream.behave(CHAT, Script(Said("One.")))
    async with began(client) as follower:
        events = await follower.to_the_end()
    path = f"/v1/responses/{events[0]['response']['id']}?stream=true&starting_after={after}"
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.text.count("data: ") == (len(events) if after.startswith("-") else 0)


async def test_one_without_events_cant_be_streamed_before_it_is_over(upstream, client):
    """It wasn't created with `stream`; once it is over its stream is made up."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("One.", before=gate)))
    made = await created(client, background=True)
    path = f"/v1/responses/{made['id']}?stream=true"
    answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream"
    gate.open.set()
    shown = await over(client, made["id"])
    events = await read_again(client, made["id"])
    check_events(events)
    assert events[-1]["response"] == shown


@pytest.mark.alone
async def test_a_response_that_is_deleted_ends_its_followers(upstream, client, replica):
    """With an error, which is none of OpenAI's ends; the work ends too."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("One.", before=gate)))
    async with began(client) as follower:
        event = await follower.until("response.in_progress")
        await asyncio.wait_for(gate.reached.wait(), 20)
        answer = await replica.delete(f"/v1/responses/{event['response']['id']}")
        assert answer.status_code == 200
        error = await follower.until("error")
        assert await follower.next() is None
    assert "not found" in error["message"]
    assert error["sequence_number"] == event["sequence_number"]
    request = asked(upstream)[-1]
    await request.until_gone(within=8)


# --------------------------------------------------------------------------- made up afterwards


async def test_streams_of_all_kinds_of_responses_are_made_up(upstream, running, client):
    """Text, thoughts, calls, searches, a failure, an incomplete one: strictly OpenAI's events."""
    state = running.application.state
    shelf = Shelf(state.database, state.index, store_id="vs_plain", keyword=False)
    await shelf.open()
    await shelf.put("file-1", [LAMP])
    search = {"type": "file_search", "vector_store_ids": ["vs_plain"]}
    scripts: list[tuple[list[Said], dict[str, Any], str]] = [
        ([Said("One two.", reasoning="Hm.")], {}, "completed"),
        ([Said("One two.")], {"include": ["message.output_text.logprobs"]}, "completed"),
        ([Said(calls=[("look", {"at": "it"}), ("look", {})])], {"tools": [FUNCTION]}, "completed"),
        (
            [Said(calls=[("file_search", {"query": "lamp"})]), Said(LAMP)],
            {"tools": [search]},
            "completed",
        ),
        ([Said("One two", finish="length")], {"max_output_tokens": 16}, "incomplete"),
        ([Said("never", before=_breaks)], {"background": True}, "failed"),
    ]
    for turns, body, status in scripts:
        upstream.reset()
        upstream.behave(CHAT, Script(*turns))
        made = await created(client, **body)
        shown = await over(client, made["id"])
        assert shown["status"] == status, shown
        events = await read_again(client, made["id"])
        check_events(events)
        assert events[-1]["response"] == shown
        done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
        assert done == shown["output"]


async def _breaks(exchange: Exchange) -> None:
    await exchange.chunk(b"data: this is no JSON\n\n")


# --------------------------------------------------------------------------- cancelling


async def cancelled(client: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    answer = await client.post(f"/v1/responses/{response_id}/cancel")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["status"] == "cancelled"
    assert (await client.get(f"/v1/responses/{response_id}")).json() == shown
    return dict(shown)


@pytest.mark.alone
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "at another replica"])
async def test_cancelling_stops_the_model_server(upstream, client, replica, elsewhere):
    """Within a second and a half, in the middle of a turn; twice is once; and the stream has one
    end that says so."""
    gate = Gate()
    upstream.behave(CHAT, Script(Said("One two three.", before=gate)))
    async with began(client) as follower:
        event = await follower.until("response.in_progress")
        await asyncio.wait_for(gate.reached.wait(), 20)
        at = time.monotonic()
        response_id = event["response"]["id"]
        shown = await cancelled(replica if elsewhere else client, response_id)
        assert await asked(upstream)[-1].until_gone(within=8) - at < 5
        events = await follower.to_the_end()
    check_events(events)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"] == shown
    assert await cancelled(client, response_id) == shown
    assert await read_again(client, response_id) == events
    await asyncio.sleep(1.2)
    assert await read_again(client, response_id) == events


async def test_cancelling_amid_a_text_leaves_what_was_said_readable(upstream, client):
    """The worker writes nothing behind the end."""
    upstream.behave(CHAT, Script(Said("One two three. " * 50, between=0.02)))
    async with began(client) as follower:
        for _ in range(10):
            event = await follower.until("response.output_text.delta")
        response_id = follower.events[0]["response"]["id"]
        await cancelled(client, response_id)
        events = await follower.to_the_end()
    check_events(events)
    assert events[-1]["sequence_number"] > event["sequence_number"]
    await asyncio.sleep(1.2)
    assert await read_again(client, response_id) == events


async def test_one_that_waits_is_cancelled_before_it_begins(sections, upstream):
    """No worker ever takes it up."""
    idle = {**sections["ingestion"], "embedded_worker": False}
    upstream.behave(CHAT, Script(Said("One.")))
    async with (
        InProcessGateway(models=NAMES, **{**sections, "ingestion": idle}) as api,
        api.client() as client,
    ):
        made = await created(client, background=True)
        assert made["status"] == "queued"
        shown = await cancelled(client, made["id"])
        async with InProcessGateway(models=NAMES, **sections):
            await asyncio.sleep(1.2)
        assert (await client.get(f"/v1/responses/{made['id']}")).json() == shown
        assert asked(upstream) == []
        check_events(await read_again(client, made["id"]))


async def test_what_is_over_or_not_in_the_background_cant_be_cancelled(upstream, client):
    """400, and it stays as it is."""
    upstream.behave(CHAT, Script(Said("One.")))
    for background in (True, False):
        made = await created(client, background=background)
        shown = await over(client, made["id"])
        answer = await client.post(f"/v1/responses/{made['id']}/cancel")
        assert answer.status_code == 400, answer.text
        assert (await client.get(f"/v1/responses/{made['id']}")).json() == shown
    assert (await client.post("/v1/responses/resp_none/cancel")).status_code == 404


async def test_llamastack_says_conflict(sections, upstream):
    """For one that is over: 409 under its profile."""
    upstream.behave(CHAT, Script(Said("One.")))
    sections["server"] = {**sections["server"], "profile": "llamastack"}
    async with InProcessGateway(**sections) as api, api.client() as client:
        await until(api.application.catalog.models, "models")
        model = next(m.id for m in api.application.catalog.models() if "chat" in m.id)
        made = await created(client, background=True, model=model)
        await over(client, made["id"])
        answer = await client.post(f"/v1/responses/{made['id']}/cancel")
        assert answer.status_code == 409


async def test_a_cancelled_response_is_no_end_of_a_conversation(upstream, client):
    """What it has said so far counts for those who build on it; half a call doesn't."""
    upstream.behave(CHAT, Script(Said("One two three. " * 50, between=0.02)), times=1)
    upstream.behave(CHAT, Script(Said("Four.")))
    made = await created(client, background=True)
    await settled(client, made["id"], ["in_progress"])
    await cancelled(client, made["id"])
    following = await created(client, previous_response_id=made["id"], input="Go on.")
    assert text_of(following) == "Four."
