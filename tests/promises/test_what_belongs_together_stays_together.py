"""Requests that share a session or the beginning of a prompt go to the same backend, whose prefix
cache they hit, as long as it isn't the busier for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
MODEL = "fake-chat"


@asynccontextmanager
async def four(**routing: Any):
    """A gateway and four servers of its model."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FakeVllm([MODEL])) for _ in range(4)]
        backends = [{"url": server.url} for server in servers]
        gateway = InProcessGateway(
            configured=[{"id": MODEL, "kind": "chat", "backends": backends}],
            discover_interval_seconds=3600,
            routing=routing,
        )
        yield await stack.enter_async_context(gateway), servers


def body(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"model": MODEL, "messages": messages, **more}


def asked(server: FakeVllm) -> int:
    return sum(one.method == "POST" for one in server.requests_to(PATH))


def who(servers: Sequence[FakeVllm]) -> list[int]:
    """Which of them have had requests."""
    return [n for n, server in enumerate(servers) if asked(server)]


SESSIONS = {
    "prompt_cache_key": ({"prompt_cache_key": "s"}, {}),
    "user": ({"user": "s"}, {}),
    "header:x-session-id": ({}, {"X-Session-Id": "s"}),
}


@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_session_is_served_by_one_backend(kind):
    """By OpenAI's cache key, its user, or a header of the team's choice."""
    more, headers = SESSIONS[kind]
    async with four(affinity=[kind]) as (gateway, servers), gateway.client() as client:
        for n in range(12):
            answer = await client.post(PATH, json=body(f"{n}", **more), headers=headers)
            assert answer.status_code == 200
        assert len(who(servers)) == 1
        for n in range(40):
            await client.post(PATH, json=body(f"{n}"))
        assert len(who(servers)) == 4


async def test_the_turns_of_a_conversation_are_served_by_one_backend():
    """Each request has the last one's messages, and another conversation goes elsewhere."""
    async with four(affinity=["prefix"]) as (gateway, servers), gateway.client() as client:
        texts = ["Who was Ada Lovelace?"]
        for n in range(6):
            assert (await client.post(PATH, json=body(*texts))).status_code == 200
            texts += [f"answer {n}", f"question {n}"]
        assert len(who(servers)) == 1
        for n in range(40):
            await client.post(PATH, json=body(f"Another question, the {n}th."))
        assert len(who(servers)) == 4


async def test_the_gateway_s_own_calls_belong_to_a_session_too():
    """The cache key of a response counts as that of a chat completion does."""
    async with four() as (gateway, servers), gateway.client() as client:
        for n in range(10):
            request = {"model": MODEL, "input": f"{n}", "prompt_cache_key": "s", "store": False}
            assert (await client.post("/v1/responses", json=request)).status_code == 200
        chats = body("x", prompt_cache_key="s")
        assert (await client.post(PATH, json=chats)).status_code == 200
        assert len(who(servers)) == 1


async def test_a_restart_changes_nothing_about_who_serves_what():
    """Nor does it matter which replica is asked: they all come to the same backend."""
    async with four() as (gateway, servers):
        backends = [{"url": server.url} for server in reversed(servers)]
        other = InProcessGateway(configured=[{"id": MODEL, "kind": "chat", "backends": backends}])
        async with other, gateway.client() as first, other.client() as second:
            for key in range(10):
                before = [asked(server) for server in servers]
                for client in (first, second):
                    await client.post(PATH, json=body("x", prompt_cache_key=f"{key}"))
                after = [asked(server) for server in servers]
                assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 0, 0, 2]


async def test_when_its_backend_dies_a_session_goes_on_elsewhere():
    """On one other backend, and without a lost request."""
    async with four() as (gateway, servers), gateway.client() as client:
        session = body("x", prompt_cache_key="s")
        await client.post(PATH, json=session)
        [home] = who(servers)
        await servers[home].stop()
        for _ in range(10):
            assert (await client.post(PATH, json=session)).status_code == 200
        assert len(who(servers)) == 2


async def test_a_hot_session_is_spread():
    """Past its share and `free_load`, what belongs to one backend goes to the next."""
    async with four(free_load=4) as (gateway, servers), gateway.client() as client:
        for server in servers:
            server.behave(PATH, faults.slow(before_head=1.5))
        hot = body("x", prompt_cache_key="s")
        tasks = [asyncio.create_task(client.post(PATH, json=hot)) for _ in range(40)]
        await until(lambda: sum(map(asked, servers)) == 40, "all forty")
        loads = sorted(map(asked, servers))
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert loads[-1] <= 14  # a quarter of 40, a quarter more, and rounding
        assert loads[0] >= 1
