"""Hundreds of responses in the background at once: all of them are made, and nobody else waits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.support.inprocess import InProcessGateway
from tests.support.responses import check_events, created, over, stored_events, text_of
from tests.support.upstream import FakeVllm
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

MANY = 200
AT_ONCE = 8
TEXT = "One two three four five six seven eight."
PLAIN = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hi."}]}


async def begin_streamed(client: httpx.AsyncClient) -> str:
    body = {"model": "fake-chat", "input": "Hi.", "background": True, "stream": True}
    async with client.stream("POST", "/v1/responses", json=body) as answer:
        line = await anext(line async for line in answer.aiter_lines() if "resp_" in line)
    return "resp_" + line.partition("resp_")[2].partition('"')[0]


async def test_all_of_them_are_made_and_others_are_served(
    upstream: FakeVllm, tmp_path: Path, record_property
):
    """Half of them are streamed, so that eight at a time write their events to SQLite; meanwhile
    chat is relayed and small responses are made and stored as quickly as ever."""
    upstream.behave(CHAT, Script(Said(TEXT, between=0.02)))
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            data_dir=str(tmp_path),
            responses={"workers": AT_ONCE},
        ) as running,
        running.client() as client,
    ):
        began = time.monotonic()
        ids = [
            await begin_streamed(client)
            if number % 2
            else (await created(client, background=True))["id"]
            for number in range(MANY)
        ]
        accepted = time.monotonic() - began
        done = asyncio.gather(*(over(client, one, within=240) for one in ids[-1:]))
        waits: dict[str, list[float]] = {"chat": [], "stored": []}
        while not done.done():
            for name, path, body in (
                ("chat", "/v1/chat/completions", PLAIN),
                ("stored", "/v1/responses", {"model": "fake-chat", "input": "Hi."}),
            ):
                at = time.monotonic()
                assert (await client.post(path, json=body)).status_code == 200
                waits[name].append(time.monotonic() - at)
        for response_id in ids:
            shown = await over(client, response_id, within=240)
            assert shown["status"] == "completed"
            assert text_of(shown) == TEXT
        took = time.monotonic() - began
        for response_id in ids[1::2]:
            check_events(await stored_events(running.application.state.database, response_id))
    for name, seconds in waits.items():
        record_property(name, sorted(seconds)[len(seconds) // 2])
        print(
            f"{name}: {len(seconds)} calls, median {sorted(seconds)[len(seconds) // 2]:.3f} s, "
            f"slowest {max(seconds):.3f} s"
        )
    print(f"accepted in {accepted:.1f} s, all done in {took:.1f} s")
    # Those that are not streamed take no longer than the model does, with some room for a busy
    # machine; a stored one speaks for 0.3 s.
    assert sorted(waits["chat"])[len(waits["chat"]) // 2] < 1
    assert sorted(waits["stored"])[len(waits["stored"]) // 2] < 3
