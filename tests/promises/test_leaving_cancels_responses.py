"""A client that leaves a response ends the work for it at once, and nothing of it is kept; what is
in the background goes on. A gateway that ends says so in the streams that it breaks off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway.app
from tests.support.everywhere import tables_with
from tests.support.inprocess import InProcessGateway, until
from tests.support.memory import MemoryVectorIndex
from tests.support.responses import Follower, check_events, over, text_of
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm, Received
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 1.0
EMBED = "/v1/embeddings"
ASKED = "What stands on the rock?"
SEARCH = Said(calls=[("file_search", {"query": "lamp"})])


async def hold(_: Exchange) -> None:
    await asyncio.Event().wait()


def sections(upstream: FakeVllm, embedding: FakeVllm, folder: Path) -> dict[str, Any]:
    return {
        "discover": [upstream.url, embedding.url],
        "models": ["fake-chat", "fake-embedding"],
        "data_dir": str(folder),
        "server": {"heartbeat_seconds": 0.1},
    }


@pytest.fixture
async def running(
    upstream: FakeVllm,
    embedding_upstream: FakeVllm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[InProcessGateway]:
    monkeypatch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
    async with InProcessGateway(**sections(upstream, embedding_upstream, tmp_path)) as started:
        yield started


def asked(server: FakeVllm, path: str = CHAT) -> list[Received]:
    """What was asked in earnest; discovery asks too."""
    return [
        one
        for one in server.requests_to(path)
        if one.method == "POST" and (path == CHAT or b"lamp" in one.body)
    ]


async def leave(running: InProcessGateway, *, after: Any, **body: Any) -> None:
    """Create a response and leave as soon as ``after`` says so."""

    async def read() -> None:
        async with (
            running.client() as client,
            client.stream(
                "POST", "/v1/responses", json={"model": "fake-chat", "input": ASKED, **body}
            ) as answer,
        ):
            async for _ in answer.aiter_bytes():
                seen.set()

    seen = asyncio.Event()
    task = asyncio.create_task(read())
    await until(lambda: after(seen), "the moment to leave")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def nothing_is_kept(running: InProcessGateway) -> None:
    await asyncio.sleep(0.1)
    assert await tables_with(running.application.state.database, ASKED) == []
    assert await tables_with(running.application.state.database, "resp_") == []


async def stopped(request: Received) -> None:
    at = asyncio.get_running_loop().time()
    assert await request.until_gone(within=2) - at < LIMIT_SECONDS


@pytest.mark.alone
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_leaving_before_the_first_byte_stops_it(running, upstream, stream):
    """The model is still reading the prompt."""
    upstream.behave(CHAT, Script(Said("never", before=hold)))
    await leave(running, after=lambda _: asked(upstream), stream=stream)
    await stopped(asked(upstream)[-1])
    await nothing_is_kept(running)


@pytest.mark.alone
async def test_leaving_mid_stream_stops_it(running, upstream):
    """Between two events."""
    upstream.behave(CHAT, Script(Said("One two three. " * 50, between=0.02)))
    await leave(running, after=lambda seen: seen.is_set(), stream=True)
    await stopped(asked(upstream)[-1])
    await nothing_is_kept(running)


@pytest.mark.alone
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_leaving_while_a_tool_runs_stops_that(running, upstream, embedding_upstream, stream):
    """And the model isn't asked again."""
    shelf = Shelf(running.application.state.database, running.application.state.index)
    await shelf.open()
    await shelf.put("file-1", ["The lamp turns."])
    upstream.behave(CHAT, Script(SEARCH, Said("never")))

    async def hangs_at_searches(exchange: Exchange) -> None:
        await (exchange.hang() if b"lamp" in exchange.request.body else exchange.honestly())

    embedding_upstream.behave(EMBED, hangs_at_searches)
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"]}
    searching = lambda _: asked(embedding_upstream, EMBED)  # noqa: E731
    await leave(running, after=searching, stream=stream, tools=[tool])
    await stopped(asked(embedding_upstream, EMBED)[-1])
    await nothing_is_kept(running)
    assert len(asked(upstream)) == 1


async def test_what_is_in_the_background_goes_on(running, upstream):
    """Whoever leaves its stream."""
    gate = asyncio.Event()

    async def wait(_: Exchange) -> None:
        await gate.wait()

    upstream.behave(CHAT, Script(Said("One.", before=wait)))
    await leave(running, after=lambda _: asked(upstream), stream=True, background=True)
    gate.set()
    async with running.client() as client:
        [made] = (await client.get("/v1/responses")).json()["data"]
        assert text_of(await over(client, made["id"])) == "One."


@pytest.mark.alone
async def test_a_silent_stream_gets_comments(running, upstream):
    """So that proxies keep it open; also before the first event."""
    gate = asyncio.Event()

    async def wait(_: Exchange) -> None:
        await gate.wait()

    upstream.behave(CHAT, Script(Said("One.", before=wait)))
    body = {"model": "fake-chat", "input": ASKED, "stream": True}
    async with (
        running.client() as client,
        client.stream("POST", "/v1/responses", json=body) as answer,
    ):
        follower = Follower(answer)
        await follower.until("response.in_progress")
        await asyncio.sleep(0.5)
        gate.set()
        check_events(await follower.to_the_end())
    assert 2 <= follower.pings <= 12


async def test_a_gateway_that_ends_fails_the_streams_it_makes(
    upstream, embedding_upstream, tmp_path
):
    """With a last event, and in order; nothing of it is kept."""
    upstream.behave(CHAT, Script(Said("One two three. " * 500, between=0.02)))
    ended = InProcessGateway(**sections(upstream, embedding_upstream, tmp_path))
    body = {"model": "fake-chat", "input": ASKED, "stream": True}
    async with httpx.AsyncClient(timeout=30) as client, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ended)
        async with client.stream("POST", f"{ended.base_url}/responses", json=body) as answer:
            follower = Follower(answer)
            await follower.until("response.output_text.delta")
            closing = asyncio.create_task(stack.aclose())
            events = await follower.to_the_end()
            await closing
    check_events(events)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert {item["status"] for item in events[-1]["response"]["output"]} == {"incomplete"}
    again = InProcessGateway(**sections(upstream, embedding_upstream, tmp_path))
    async with again:
        assert await tables_with(again.application.state.database, ASKED) == []


async def test_a_gateway_that_ends_cuts_followers_off(upstream, embedding_upstream, tmp_path):
    """The response isn't over: who follows it must not take that for its end, and comes back."""
    upstream.behave(CHAT, Script(Said("One two three. " * 500, between=0.02)))
    ended = InProcessGateway(**sections(upstream, embedding_upstream, tmp_path))
    body = {"model": "fake-chat", "input": ASKED, "stream": True, "background": True}
    async with httpx.AsyncClient(timeout=30) as client, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ended)
        async with client.stream("POST", f"{ended.base_url}/responses", json=body) as answer:
            follower = Follower(answer)
            await follower.until("response.output_text.delta")
            closing = asyncio.create_task(stack.aclose())
            with pytest.raises(httpx.RemoteProtocolError):
                await follower.to_the_end()
            await closing
    last = follower.events[-1]
    upstream.reset()
    upstream.behave(CHAT, Script(Said("Four.")))
    again = InProcessGateway(**sections(upstream, embedding_upstream, tmp_path))
    async with again, again.client() as client:
        response_id = follower.events[0]["response"]["id"]
        path = f"/v1/responses/{response_id}?stream=true&starting_after={last['sequence_number']}"
        async with client.stream("GET", path) as answer:
            rest = await Follower(answer).to_the_end()
        check_events([*follower.events, *rest])
        assert text_of(rest[-1]["response"]) == "Four."
