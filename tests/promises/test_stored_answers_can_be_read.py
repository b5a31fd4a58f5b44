"""A chat completion that is to be stored can be read as soon as its caller has the last byte, and a
database that is away keeps no answer from its caller."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import UpstreamUnavailable
from tests.support.expect import payloads
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
ASKED = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}], "store": True}
COUNT = "understudy_chat_completion_store_duration_seconds_count"


@pytest.fixture
async def gateway(upstream: FakeVllm, tmp_path: Path) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url], models=["fake-chat"], data_dir=str(tmp_path)
    ) as gateway:
        yield gateway


@pytest.fixture
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as http:
        yield http


def rows(tmp_path: Path) -> set[str]:
    """The ids that are committed, seen from outside of the gateway."""
    with sqlite3.connect(tmp_path / "understudy.db") as connection:
        return {name for (name,) in connection.execute("SELECT id FROM chat_completions")}


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_there_before_the_last_byte(http, tmp_path, stream):
    """Looked for at the moment of `[DONE]`, or of the body's end, again and again, many at once."""

    async def one() -> None:
        async with http.stream("POST", PATH, json={**ASKED, "stream": stream}) as answer:
            body = b""
            async for block in answer.aiter_bytes():
                body += block
                if b"[DONE]" in body or not stream:
                    data = payloads(body)[0] if stream else body
                    assert json.loads(data)["id"] in rows(tmp_path)

    for _ in range(5):
        await asyncio.gather(*(one() for _ in range(8)))
    assert len(rows(tmp_path)) == 40


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stored_answer_is_the_same_as_another(http, stream):
    """Byte for byte, but for its id and time."""
    shown = []
    for more in ({}, {"store": True}):
        answer = await http.post(PATH, json={**ASKED, "store": False, **more, "stream": stream})
        [name] = {json.loads(one)["id"] for one in _objects(answer.content, stream=stream)}
        created = json.loads(_objects(answer.content, stream=stream)[0])["created"]
        shown.append(answer.content.replace(name.encode(), b"").replace(str(created).encode(), b""))
    assert shown[0] == shown[1]


def _objects(body: bytes, *, stream: bool) -> list[bytes]:
    return payloads(body)[:-1] if stream else [body]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_database_that_is_away_keeps_no_answer_back(gateway, http, monkeypatch, stream):
    """It is told by the log and the metrics."""

    def away() -> Any:
        raise UpstreamUnavailable("away", code="database_unavailable")

    monkeypatch.setattr(gateway.application.state.database, "begin", away)
    answer = await http.post(PATH, json={**ASKED, "stream": stream})
    assert answer.status_code == 200
    assert b"Paris" in answer.content if not stream else b"[DONE]" in answer.content
    assert gateway.metric(COUNT, understudy_store_outcome="failed") == 1
    name = json.loads(_objects(answer.content, stream=stream)[0])["id"]
    assert (await http.get(f"{PATH}/{name}")).status_code == 404


@pytest.mark.alone
async def test_a_locked_database_holds_answers_back_for_a_bounded_time(http, tmp_path, monkeypatch):
    """And is caught up with afterwards."""
    monkeypatch.setattr("gateway.stored_completions.writer.HOLD_SECONDS", 0.2)
    locked = sqlite3.connect(tmp_path / "understudy.db", isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    began = time.perf_counter()
    answers = [await http.post(PATH, json=ASKED) for _ in range(5)]
    assert time.perf_counter() - began < 2
    assert {answer.status_code for answer in answers} == {200}
    locked.execute("ROLLBACK")
    locked.close()
    names = {answer.json()["id"] for answer in answers}
    async with asyncio.timeout(20):
        while rows(tmp_path) != names:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_does_not_store_does_not_wait(gateway, http, monkeypatch, stream):
    """Not even for what would have to be asked whether to."""
    monkeypatch.delattr(gateway.application.agentic.completion_recorder, "_writer")
    asked = {key: value for key, value in ASKED.items() if key != "store"}
    answer = await http.post(PATH, json={**asked, "stream": stream})
    assert answer.status_code == 200
