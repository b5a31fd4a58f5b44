"""A batch ends, and within its time: with all its lines, or with what was done until then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from sqlalchemy import delete, update

from gateway.batches.claims import BatchClaims
from gateway.database.tables import BatchRow, JobRow
from tests.support.batches import CHAT, chat_line, finished, made, results
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import Exchange, FakeVllm, faults

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(
    upstream: FakeVllm, folder: Path, **batches: Any
) -> AsyncIterator[tuple[InProcessGateway, AsyncOpenAI]]:
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            data_dir=str(folder),
            batches=batches,
            discover_interval_seconds=0.2,
        ) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
    ):
        yield gateway, client


async def honest_for_a_and_b(exchange: Exchange) -> None:
    if exchange.request.json["messages"][0]["content"] in "ab":
        await exchange.honestly()
    else:
        await exchange.hang()


async def posted(upstream: FakeVllm, count: int) -> None:
    """Wait for so many chats; discovery's look at the path is none."""

    def come() -> bool:
        return sum(one.method == "POST" for one in upstream.requests_to(CHAT)) >= count

    await until(come, f"{count} requests")


async def test_a_batch_expires_with_what_is_done(upstream: FakeVllm, tmp_path: Path):
    """The other lines are in the error file, as OpenAI has them, and the server is left alone."""
    upstream.behave(CHAT, honest_for_a_and_b)
    async with running(upstream, tmp_path, window_seconds=6) as (_, client):
        batch = await finished(client, await made(client, map(chat_line, "abcdef")))
        assert batch.status == "expired"
        assert batch.expires_at == batch.created_at + 6
        assert batch.expired_at >= batch.finalizing_at >= batch.expires_at
        done = await results(client, batch.output_file_id)
        assert [one["custom_id"] for one in done] == ["a", "b"]
        late = await results(client, batch.error_file_id)
        assert [one["custom_id"] for one in late] == ["c", "d", "e", "f"]
        for one in late:
            assert one["response"] is None
            assert one["error"]["code"] == "batch_expired"
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (6, 2, 4)
        asked = [one for one in upstream.requests_to(CHAT) if one.method == "POST"]
        await until(lambda: all(one.finished or one.gone for one in asked), "end of what hung")
        assert any(one.gone is not None for one in asked)


async def test_a_server_that_is_away_is_waited_for(upstream: FakeVllm, tmp_path: Path):
    """No line fails of it; what was done before is not done again."""
    async with running(upstream, tmp_path) as (_, client):
        upstream.behave(CHAT, faults.slow(before_head=0.05))
        batch = await made(client, (chat_line(str(number)) for number in range(400)))
        while batch.request_counts.completed < 5:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        await upstream.stop()
        await asyncio.sleep(1.5)
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "in_progress"
        await upstream.start()
        upstream.reset()
        batch = await finished(client, batch, within=30)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (400, 0)


async def test_a_server_that_only_says_503_is_waited_for_too(upstream: FakeVllm, tmp_path: Path):
    """That is what a router in front of it says when it is down."""
    async with running(upstream, tmp_path, max_attempts=1) as (_, client):
        upstream.behave(CHAT, faults.unavailable())
        batch = await made(client, map(chat_line, "ab"))
        await posted(upstream, 1)
        await asyncio.sleep(0.5)
        upstream.reset()
        batch = await finished(client, batch, within=30)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 0)


async def test_a_model_that_comes_later_is_waited_for(upstream: FakeVllm, tmp_path: Path):
    """A batch whose server hasn't answered since the start isn't refused for it."""
    await upstream.stop()
    async with (
        InProcessGateway(
            discover=[upstream.url], data_dir=str(tmp_path), discover_interval_seconds=0.2
        ) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client,
    ):
        batch = await made(client, map(chat_line, "ab"))
        await asyncio.sleep(0.5)
        assert (await client.batches.retrieve(batch.id)).status == "validating"
        await upstream.start()
        assert (await finished(client, batch)).request_counts.completed == 2


@pytest.mark.one_process
async def test_a_batch_whose_job_is_lost_is_reminded_of(upstream: FakeVllm, tmp_path: Path):
    """The reaper gives it a new one once nobody has touched it for an hour."""
    async with running(upstream, tmp_path) as (gateway, client):
        upstream.behave(CHAT, faults.hangs_before_head(), times=2)
        busy = [await made(client, [chat_line("a")]) for _ in range(2)]
        await posted(upstream, 2)
        batch = await made(client, [chat_line("b")])
        database = gateway.application.state.database
        async with database.begin() as session:
            jobs = delete(JobRow).where(JobRow.holder.is_(None), JobRow.kind == "run_batch")
            assert (await session.execute(jobs)).rowcount == 1
        for one in busy:
            await finished(client, await client.batches.cancel(one.id))
        service = gateway.application.agentic.batches
        assert await service.remind() == 0
        await asyncio.sleep(0.7)
        assert (await client.batches.retrieve(batch.id)).status == "validating"
        async with database.begin() as session:
            await session.execute(update(BatchRow).values(touched_at=int(time.time()) - 3601))
        assert await service.remind() == 1
        assert (await finished(client, batch)).status == "completed"


async def test_a_batch_that_waits_for_a_worker_is_cancelled_soon(
    upstream: FakeVllm, tmp_path: Path
):
    """Long batches ahead of it don't keep it cancelling."""
    async with running(upstream, tmp_path, workers=1) as (_, client):
        upstream.behave(CHAT, faults.hangs_before_head())
        await made(client, [chat_line("a")])
        await posted(upstream, 1)
        batch = await client.batches.cancel((await made(client, [chat_line("b")])).id)
        batch = await finished(client, batch, within=20)
        assert (batch.status, batch.output_file_id) == ("cancelled", None)


@pytest.mark.one_process
async def test_a_crash_between_file_and_row_costs_nothing(
    upstream: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The files are written anew; no second one is listed, and no line is done again."""
    finish, crashed = BatchClaims.finish, asyncio.Event()

    async def crashes_once(*arguments: Any) -> None:
        if not crashed.is_set():
            crashed.set()
            raise OSError("as if the process were gone")
        await finish(*arguments)

    monkeypatch.setattr(BatchClaims, "finish", crashes_once)
    async with running(upstream, tmp_path) as (_, client):
        batch = await finished(client, await made(client, map(chat_line, "abc")))
        assert crashed.is_set()
        asked = [one for one in upstream.requests_to(CHAT) if one.method == "POST"]
        assert len(asked) == 3
        files = [file.id async for file in client.files.list(purpose="batch_output")]
        assert files == [batch.output_file_id]
        done = await results(client, batch.output_file_id)
        assert [one["custom_id"] for one in done] == ["a", "b", "c"]
