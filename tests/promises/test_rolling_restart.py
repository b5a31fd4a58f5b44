"""Restarting one replica after the other, as a rolling update does, loses no request."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.support.balancer import Balancer
from tests.support.gateway import GatewayProcess
from tests.support.upstream import FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

REPLICAS = 3
CALLERS = 2
CHAT = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def replicas(
    postgres_url: str, s3, upstream: FakeVllm, embedding_upstream: FakeVllm
) -> AsyncIterator[list[GatewayProcess]]:
    upstream.behave(CHAT, faults.slow(between_events=0.1))
    config = {
        "discover": [upstream.url, embedding_upstream.url],
        "database": {"url": postgres_url},
        "objects": s3.settings(bucket="rolling"),
        "server": {"drain_seconds": 4.0, "shutdown_grace_seconds": 20},
        "ingestion": {"lease_seconds": 60},
    }
    async with AsyncExitStack() as stack:
        made = [GatewayProcess(config, models=["fake-chat"]) for _ in range(REPLICAS)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in made))
        yield made


async def chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="fake-chat", messages=MESSAGES)
    assert answer.choices[0].message.content


async def stream(client: AsyncOpenAI) -> None:
    events = [
        event
        async for event in await client.chat.completions.create(
            model="fake-chat", messages=MESSAGES, stream=True
        )
    ]
    assert events[-1].choices[0].finish_reason == "stop"


async def file(client: AsyncOpenAI) -> None:
    data = random.randbytes(random.randrange(1, 300_000))
    made = await client.files.create(file=("a.bin", data), purpose="user_data")
    assert (await client.files.content(made.id)).content == data
    await client.files.delete(made.id)


async def response(client: AsyncOpenAI) -> None:
    """One in the background, which is polled."""
    made = await client.responses.create(model="fake-chat", input="hi", background=True)
    async with asyncio.timeout(30):
        while made.status in ("queued", "in_progress"):
            await asyncio.sleep(0.05)
            made = await client.responses.retrieve(made.id)
    assert made.status == "completed"


async def test_a_rolling_restart_loses_no_request(replicas: list[GatewayProcess]):
    """Chats, streams, files and responses go on all the while; each replica ends with status 0."""
    done: Counter[str] = Counter()
    failures: list[str] = []
    over = asyncio.Event()

    async def caller(act: Callable[[AsyncOpenAI], Awaitable[None]], base_url: str) -> None:
        async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            while not over.is_set():
                try:
                    await act(client)
                    done[act.__name__] += 1
                except Exception as error:  # noqa: BLE001  (any counts)
                    failures.append(f"{act.__name__}: {error!r} from {error.__cause__!r}")

    acts = (chat, stream, file, response)
    async with Balancer([one.port for one in replicas]) as balancer:
        await balancer.until_ready(REPLICAS)
        async with asyncio.TaskGroup() as group:
            for act, _ in itertools.product(acts, range(CALLERS)):
                group.create_task(caller(act, balancer.base_url))
            for replica in replicas:
                before = done.copy()
                assert await asyncio.to_thread(replica.terminate, 40) == 0
                await asyncio.to_thread(replica.start)
                await balancer.until_ready(REPLICAS)
                assert all(done[act.__name__] > before[act.__name__] for act in acts)
            over.set()
    assert (failures, balancer.refused) == ([], []), done
