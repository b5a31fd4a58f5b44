"""kill -9 at any moment: a response in the background is completed, from the last turn that was
written down, or failed with a reason. It never hangs, and no turn that is done is asked again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

import gateway.app
from gateway.database.engine import Database
from gateway.database.tables import ResponseRow
from gateway.responses.worker import FORGOTTEN_SECONDS, MOST_ATTEMPTS
from tests.support.everywhere import files_with, tables_with
from tests.support.fake_tool_servers import FakeToolServers, give_tools
from tests.support.gateway import GatewayProcess
from tests.support.inprocess import InProcessGateway, until
from tests.support.mortal_gateway import MortalProcess, MortalProcesses, shared_index
from tests.support.responses import check_events, created, over, settled, stored_events, text_of
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 2.0  # a busy worker renews it in time
KILLS = int(os.environ.get("SOAK_KILLS", "12"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1_000_000)))
TOKEN = "a-token-that-nobody-may-see"
LAMP = "The lamp of the lighthouse turns at night."
SEARCH = Said(calls=[("file_search", {"query": "lamp"})])


class World:
    """An API without a worker, and workers that are killed."""

    def __init__(
        self,
        sections: dict[str, Any],
        running: InProcessGateway,
        client: httpx.AsyncClient,
        processes: MortalProcesses,
        upstream: FakeVllm,
    ) -> None:
        self.sections = sections
        self.running = running
        self.client = client
        self.processes = processes
        self.upstream = upstream

    @property
    def database(self) -> Database:
        return self.running.application.state.database

    def worker(self, death: Any = None, **sections: Any) -> MortalProcess:
        return self.processes.worker({**self.sections, **sections}, death)

    def script(self, *turns: Said) -> Script:
        script = Script(*turns)
        self.upstream.behave(CHAT, script)
        return script

    async def begin(self, **body: Any) -> str:
        """The id of a response in the background whose events are kept."""
        answer = self.client.stream(
            "POST",
            "/v1/responses",
            json={
                "model": "fake-chat",
                "input": "What is on the rock?",
                "background": True,
                "stream": True,
                **body,
            },
        )
        async with answer as began:  # and leave: the work goes on
            line = await anext(line async for line in began.aiter_lines() if "resp_" in line)
        return "resp_" + line.partition("resp_")[2].partition('"')[0]

    async def ends(self, response_id: str) -> dict[str, Any]:
        """The response as it ends, its stream being a right one."""
        shown = await over(self.client, response_id)
        events = await stored_events(self.database, response_id)
        check_events(events)
        # What `include` shows is in the one, and in the other only on demand.
        wanted = "include[]=file_search_call.results"
        whole = await self.client.get(f"/v1/responses/{response_id}?{wanted}")
        assert events[-1]["response"] in (shown, whole.json())
        return dict(whole.json())


async def some_events(world: World, response_id: str) -> list[dict[str, Any]]:
    """What is kept of its stream, once that is in the middle of its text."""
    async with asyncio.timeout(30):
        while len(seen := await stored_events(world.database, response_id)) < 10:
            await asyncio.sleep(0.05)
    return seen


async def hold(_: Exchange) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def processes() -> Iterator[MortalProcesses]:
    with MortalProcesses() as started:
        yield started


@pytest.fixture
def sections(
    database_settings: Any, upstream: FakeVllm, embedding_upstream: FakeVllm, tmp_path: Path
) -> dict[str, Any]:
    return {
        "discover": [upstream.url, embedding_upstream.url],
        "database": {"url": database_settings.url},
        "data_dir": str(tmp_path),
        "ingestion": {"lease_seconds": LEASE_SECONDS, "embedded_worker": False},
    }


@pytest.fixture
async def world(
    sections: dict[str, Any],
    processes: MortalProcesses,
    upstream: FakeVllm,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    monkeypatch.setattr(gateway.app, "_vector_index", shared_index)
    names = ["fake-chat", "fake-embedding"]
    async with (
        InProcessGateway(models=names, **sections) as running,
        running.client() as client,
    ):
        yield World(sections, running, client, processes, upstream)


# --------------------------------------------------------------------------- where it is killed


async def test_killed_before_the_first_token_it_is_asked_again(world):
    """Nothing was written down yet but the request."""
    script = world.script(Said("never", before=hold), Said("A lighthouse."))
    worker = world.worker()
    response_id = await world.begin()
    await until(lambda: len(script.requests) == 1, "turn", within=30)
    worker.kill()
    world.worker()
    assert text_of(await world.ends(response_id)) == "A lighthouse."
    assert len(script.requests) == 2


async def test_killed_amid_its_text_it_is_asked_again(world):
    """Half a text counts for nothing, and who has read it goes on behind it."""
    script = world.script(Said("One two three four five. " * 20, between=0.05), Said("A gull."))
    worker = world.worker()
    response_id = await world.begin()
    await some_events(world, response_id)
    worker.kill()
    seen = await stored_events(world.database, response_id)
    world.worker()
    assert text_of(await world.ends(response_id)) == "A gull."
    kept = await stored_events(world.database, response_id)
    again = [event for event in kept if event not in seen]
    assert again[0]["sequence_number"] == seen[-1]["sequence_number"] + 1
    assert len(script.requests) == 2


async def test_numbers_are_never_given_twice(world):
    """Not even where the second attempt dies before it has said anything."""
    script = world.script(
        Said("One two three four five. " * 20, between=0.05),
        Said("never", before=hold),
        Said("A gull."),
    )
    worker = world.worker()
    response_id = await world.begin()
    seen = await some_events(world, response_id)
    for attempt in (2, 3):
        worker.kill()
        if attempt == 2:
            seen = await stored_events(world.database, response_id)
        worker = world.worker()
        await until(lambda: len(script.requests) == attempt, "turn", within=30)  # noqa: B023
    await world.ends(response_id)
    kept = await stored_events(world.database, response_id)
    after = next(event for event in kept if event not in seen)
    assert after["sequence_number"] > seen[-1]["sequence_number"]


async def with_documents(world: World) -> dict[str, Any]:
    """A vector store with a sentence in it, as a tool."""
    shelf = Shelf(world.database, world.running.application.state.index, keyword=False)
    await shelf.open()
    await shelf.put("file-1", [LAMP])
    return {"type": "file_search", "vector_store_ids": ["vs_1"]}


def searches_of(embedding: FakeVllm) -> int:
    """How often the lamp was looked for; discovery asks the model too."""
    return sum(b"lamp" in one.body for one in embedding.requests_to("/v1/embeddings"))


async def hangs_at_searches(exchange: Exchange) -> None:
    await (exchange.hang() if b"lamp" in exchange.request.body else exchange.honestly())


async def test_killed_between_turns_it_goes_on_from_the_last(world, embedding_upstream):
    """The turn that is done isn't asked again, nor is its tool run again; what the tool found is
    told and cited as it would have been."""
    tool = await with_documents(world)
    script = world.script(SEARCH, Said("never", before=hold), Said(LAMP))
    worker = world.worker()
    response_id = await world.begin(tools=[tool], tool_choice="required", max_infer_iters=2)
    await until(lambda: len(script.requests) == 2, "second turn", within=30)
    searches = searches_of(embedding_upstream)
    worker.kill()
    world.worker()
    shown = await world.ends(response_id)
    assert [item["type"] for item in shown["output"]] == ["file_search_call", "message"]
    assert shown["output"][1]["content"][0]["annotations"][0]["file_id"] == "file-1"
    assert len(script.requests) == 3
    assert searches_of(embedding_upstream) == searches
    first, second, third = script.requests
    assert [one["content"] for one in third["messages"]][-1].endswith(LAMP)
    assert third["messages"][-1]["content"] == second["messages"][-1]["content"]
    assert first["tool_choice"] == "required"
    assert third["tool_choice"] == second["tool_choice"] == "auto"
    assert shown["usage"]["input_tokens"] == 2 * 25


async def test_killed_amid_a_search_it_searches_again(world, embedding_upstream):
    """The model isn't asked again what to look for."""
    tool = await with_documents(world)
    script = world.script(SEARCH, Said(LAMP))
    embedding_upstream.behave("/v1/embeddings", hangs_at_searches)
    worker = world.worker()
    response_id = await world.begin(tools=[tool], include=["file_search_call.results"])
    await until(lambda: searches_of(embedding_upstream) == 1, "search", within=30)
    worker.kill()
    embedding_upstream.reset()
    world.worker()
    shown = await world.ends(response_id)
    search, message = shown["output"]
    assert (search["status"], search["queries"]) == ("completed", ["lamp"])
    assert search["results"][0]["text"] == LAMP
    assert message["content"][0]["annotations"][0]["file_id"] == "file-1"
    assert len(script.requests) == 2
    assert script.requests[1]["messages"][-1]["role"] == "tool"


async def test_killed_where_the_caller_has_to_go_on_it_asks_nothing_more(world, embedding_upstream):
    """A turn that calls a function of the caller's ends the response, after a kill too."""
    tool = await with_documents(world)
    function = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    script = world.script(Said(calls=[("look", {}), ("file_search", {"query": "lamp"})]))
    embedding_upstream.behave("/v1/embeddings", hangs_at_searches)
    worker = world.worker()
    response_id = await world.begin(tools=[tool, function])
    await until(lambda: searches_of(embedding_upstream) == 1, "search", within=30)
    worker.kill()
    embedding_upstream.reset()
    world.worker()
    shown = await world.ends(response_id)
    assert [item["type"] for item in shown["output"]] == ["function_call", "file_search_call"]
    assert {item["status"] for item in shown["output"]} == {"completed"}
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("death", "asked"), [("before the end is written", 2), ("after the end is written", 1)]
)
async def test_killed_at_the_commit_of_its_end_it_ends_once(world, death, asked):
    """Before it, the last turn is asked again; after it, there is nothing left to do."""
    script = world.script(Said("A lighthouse."))
    worker = world.worker(death)
    response_id = await world.begin()
    await asyncio.to_thread(worker.join)
    world.worker()
    assert text_of(await world.ends(response_id)) == "A lighthouse."
    await asyncio.sleep(2 * LEASE_SECONDS)
    assert len(script.requests) == asked


async def test_one_that_kills_its_worker_every_time_fails_in_the_end(world):
    """With what was made, and a reason."""
    script = world.script(Said("never"))
    response_id = await world.begin()
    for _ in range(MOST_ATTEMPTS):
        worker = world.worker("at the start")
        assert await asyncio.to_thread(worker.join, 20) != 0
        assert (await settled(world.client, response_id, ["in_progress"]))["error"] is None
    world.worker()
    shown = await world.ends(response_id)
    assert shown["status"] == "failed"
    assert "5 attempts" in shown["error"]["message"]
    assert script.requests == []


async def test_killed_at_random_all_of_them_end_well(world):
    """Some twenty at once, with and without a stream, two workers of which one is always dying."""
    chance = random.Random(SEED)
    turns = [Said("One two three four five.", between=0.02)]
    world.script(*turns)
    ids = [
        await world.begin()
        if chance.random() < 0.5
        else (await created(world.client, background=True))["id"]
        for _ in range(20)
    ]
    workers = [world.worker(), world.worker()]
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        workers.pop(0).kill()
        workers.append(world.worker())
        if chance.random() < 0.5:
            ids.append(await world.begin())
    for response_id in ids:
        shown = await over(world.client, response_id, within=30)
        # By chance one may meet too many deaths; it then says so.
        assert shown["status"] == "completed" or "attempts" in shown["error"]["message"], SEED
        if events := await stored_events(world.database, response_id):
            check_events(events)


# --------------------------------------------------------------------------- deploys


@pytest.mark.alone
async def test_a_deploy_hands_over_soon(world):
    """SIGTERM in the middle of a turn: another worker has it long before a lease would be over,
    and it doesn't count as an attempt."""
    patient = {"ingestion": {**world.sections["ingestion"], "lease_seconds": 60}}
    rounds = MOST_ATTEMPTS + 2
    script = world.script(*[Said("never", before=hold)] * rounds, Said("A lighthouse."))
    worker = world.worker(**patient)
    response_id = await world.begin()
    for number in range(1, rounds + 1):
        await until(lambda: len(script.requests) == number, "turn", within=30)  # noqa: B023
        following = world.worker(**patient)
        await asyncio.sleep(1)  # until it is there
        began = time.monotonic()
        worker.terminate()
        await until(lambda: len(script.requests) > number, "turn elsewhere", within=30)  # noqa: B023
        assert time.monotonic() - began < 20  # on a busy machine; the lease is 60 s
        assert await asyncio.to_thread(worker.join) == 0
        worker = following
    assert text_of(await world.ends(response_id)) == "A lighthouse."


async def test_a_server_that_is_killed_goes_on_where_it_was(upstream: FakeVllm):
    """`understudy serve` as it runs, with everything embedded."""
    script = Script(*[Said("never", before=hold)] * 2, Said("A lighthouse."))
    upstream.behave(CHAT, script)
    config = {"discover": [upstream.url], "ingestion": {"lease_seconds": 2}}
    async with (
        GatewayProcess(config, models=["fake-chat"]) as server,
        httpx.AsyncClient(base_url=server.root_url, timeout=30) as client,
    ):
        response_id = (await created(client, background=True))["id"]
        for number in (1, 2):
            await until(lambda: len(script.requests) == number, "turn")  # noqa: B023
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        assert text_of(await over(client, response_id)) == "A lighthouse."


async def test_a_model_server_that_starts_anew_is_waited_for(world):
    """Killed amid its answer and gone for a moment, it is asked again when it is back."""
    script = world.script(Said("One two three four five. " * 20, between=0.05), Said("A gull."))
    world.worker()
    response_id = await world.begin()
    await until(lambda: len(script.requests) == 1, "turn", within=30)
    await world.upstream.stop()
    await asyncio.sleep(0.5)
    await world.upstream.start()
    assert text_of(await world.ends(response_id)) == "A gull."


# --------------------------------------------------------------------------- secrets


def with_secret(**fields: Any) -> dict[str, Any]:
    server = {"server_label": "rock", "server_url": "https://rock.example/mcp"}
    tool = {"type": "mcp", **server, "require_approval": "never", "authorization": TOKEN}
    return {"background": True, "tools": [{**tool, **fields}]}


async def looks(exchange: Exchange) -> None:
    """Calls the tool, and says what is there once it knows."""
    knows = any(one["role"] == "tool" for one in exchange.request.json["messages"])
    await Script(Said("A lighthouse.") if knows else Said(calls=[("look", {})]))(exchange)


async def nowhere(database: Database, folder: Path) -> None:
    """The token isn't in any table, nor in any byte on disk."""
    assert await tables_with(database, TOKEN) == []
    assert files_with(folder, TOKEN) == []


@pytest.mark.parametrize("kept", [True, False], ids=["stream", "plain"])
async def test_a_response_with_secrets_is_made_by_its_own_process(world, tmp_path, kept):
    """Though there is a worker elsewhere; and the token is never written down."""
    world.upstream.behave(CHAT, looks)
    world.worker()
    servers = FakeToolServers(hang=True)
    give_tools(world.running.application, servers)
    made = with_secret()
    response_id = await world.begin(**made) if kept else (await created(world.client, **made))["id"]
    await asyncio.wait_for(servers.called.wait(), 20)
    await nowhere(world.database, tmp_path)
    servers.hang = False
    again = FakeToolServers()
    give_tools(world.running.application, again)
    second = (await created(world.client, **made))["id"]
    shown = await over(world.client, second)
    assert text_of(shown) == "A lighthouse."
    assert again.tokens == [TOKEN]
    await world.client.post(f"/v1/responses/{response_id}/cancel")
    await nowhere(world.database, tmp_path)
    assert TOKEN not in str(shown)


async def test_what_headers_hold_is_as_secret(world, tmp_path):
    """Of a response that isn't in the background too."""
    world.upstream.behave(CHAT, looks)
    give_tools(world.running.application, FakeToolServers())
    body = with_secret(authorization=None, headers={"x-key": TOKEN})
    for background in (True, False):
        made = await created(world.client, **{**body, "background": background})
        assert text_of(await over(world.client, made["id"])) == "A lighthouse."
    await nowhere(world.database, tmp_path)


@pytest.mark.parametrize("kept", [True, False], ids=["stream", "plain"])
async def test_one_with_secrets_fails_when_its_process_is_killed(world, tmp_path, kept):
    """The reaper finds it, once nobody has touched it for a while; it says why."""
    world.upstream.behave(CHAT, looks)
    doomed = world.processes.gateway(world.sections)
    async with httpx.AsyncClient(
        base_url=doomed.base_url.removesuffix("/v1"), timeout=30
    ) as client:
        answer = await created(client, **with_secret(), metadata={"a": "b"})
        response_id = answer["id"]
        if kept:
            async with client.stream(
                "POST",
                "/v1/responses",
                json={"model": "fake-chat", "input": "x", "stream": True, **with_secret()},
            ) as began:
                line = await anext(line async for line in began.aiter_lines() if "resp_" in line)
            response_id = "resp_" + line.partition("resp_")[2].partition('"')[0]
        await settled(client, response_id, ["in_progress"])
    world.worker()
    doomed.kill()
    worker = world.running.application.agentic._response_worker
    assert await worker.find_forgotten() == 0, "it may be a moment's silence"
    async with world.database.begin() as session:
        row = ResponseRow
        await session.execute(update(row).values(touched_at=row.touched_at - FORGOTTEN_SECONDS))
    assert await worker.find_forgotten() >= 1
    assert await worker.find_forgotten() == 0
    shown = await over(world.client, response_id)
    assert shown["status"] == "failed"
    assert "credentials" in shown["error"]["message"]
    if kept:
        check_events(await stored_events(world.database, response_id))
    await nowhere(world.database, tmp_path)


async def test_one_with_secrets_fails_at_once_when_its_process_ends_in_order(
    world, sections, tmp_path
):
    """A deploy doesn't leave its callers waiting for what nobody makes."""
    world.upstream.behave(CHAT, looks)
    world.worker()
    servers = FakeToolServers(hang=True)
    async with InProcessGateway(models=["fake-chat"], **sections) as leaving:
        give_tools(leaving.application, servers)
        async with leaving.client() as client:
            ids = [(await created(client, **with_secret()))["id"] for _ in range(2)]
            await asyncio.wait_for(servers.called.wait(), 20)
    for response_id in ids:
        shown = await over(world.client, response_id, within=20)
        assert shown["status"] == "failed"
        assert "credentials" in shown["error"]["message"]
    await nowhere(world.database, tmp_path)


async def test_the_reaper_leaves_others_alone(world):
    """One that waits its turn for long has a job, and doesn't get a second one."""
    script = world.script(Said("never", before=hold), Said("A lighthouse."))
    world.worker()
    response_id = (await created(world.client, background=True))["id"]
    await until(lambda: len(script.requests) == 1, "turn", within=30)
    async with world.database.begin() as session:
        row = ResponseRow
        await session.execute(update(row).values(touched_at=row.touched_at - 10_000))
    assert await world.running.application.agentic._response_worker.find_forgotten() == 0
    await asyncio.sleep(1.5)
    assert len(script.requests) == 1
    await world.client.post(f"/v1/responses/{response_id}/cancel")
