"""A gateway that is told to end says so first, serves on until nobody asks, and hands its work
over; a worker process that dies is followed by another one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.promises.test_workers import ManagedProcess
from tests.support.gateway import HOST, GatewayProcess, free_port
from tests.support.processes import alive, workers_of
from tests.support.upstream import FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PATH = "/v1/chat/completions"
CHAT: Any = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}


async def seen(condition: Any, what: str, within: float = 30) -> None:
    """Wait until this is so; it is asked in a thread."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not {what} within {within:g} s"
        await asyncio.sleep(0.05)


async def closing(client: httpx.AsyncClient, public: str) -> None:
    """It answers and soon closes the connection: each worker hears of the end by itself."""
    deadline = time.monotonic() + 20
    while True:
        answer = await client.post(public + PATH, json=CHAT)
        assert answer.status_code == 200
        if answer.headers.get("connection") == "close":
            return
        assert time.monotonic() < deadline, "the connection stays open"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("own_port", [False, True])
async def test_an_ending_gateway_is_unready_and_serves_on(upstream, workers, own_port):
    """/readyz says 503 at once; requests are answered and close their connections; then it ends
    with status 0."""
    server: dict[str, Any] = {"drain_seconds": 3, "workers": workers}
    if own_port:
        server["management_port"] = free_port()
    config = {"discover": [upstream.url], "server": server}
    gateway = (
        ManagedProcess(config, server["management_port"])
        if own_port
        else GatewayProcess(config, models=["fake-chat"])
    )
    public = gateway.root_url
    probes = f"http://{HOST}:{server.get('management_port', gateway.port)}"
    async with gateway, httpx.AsyncClient(timeout=30) as kept:
        assert (await kept.get(f"{probes}/readyz")).status_code == 200
        answer = await kept.post(public + PATH, json=CHAT)
        assert (answer.status_code, answer.headers.get("connection")) == (200, None)
        begun = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        await seen(
            lambda: httpx.get(f"{probes}/readyz", timeout=30).status_code == 503, "unready", 2
        )
        refused = (await kept.get(f"{probes}/readyz")).json()["error"]
        assert (refused["type"], refused["code"]) == ("service_unavailable", "shutting_down")
        for client in (kept, httpx.AsyncClient(timeout=30)):
            await closing(client, public)
        assert await asyncio.to_thread(gateway.process.wait, 15) == 0
        assert time.monotonic() - begun > 3


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_cuts(upstream, workers):
    """Streams that would go on for ever end at once, with an error event."""
    upstream.behave(PATH, faults.endless(between_events=0.05))
    async with (
        GatewayProcess(
            {"discover": [upstream.url], "server": {"drain_seconds": 60, "workers": workers}},
            models=["fake-chat"],
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
        client.stream("POST", PATH, json={**CHAT, "stream": True}) as answer,
    ):
        parts = answer.aiter_raw()
        received = await anext(parts)
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1)
        begun = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        received += b"".join([part async for part in parts])
        assert b"shutting_down" in received
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0
        assert time.monotonic() - begun < 10


async def test_a_connection_that_was_kept_open_may_be_used_once_more(upstream):
    """A stream began before SIGTERM, so its head could not say that the connection ends with it:
    the request that follows on it is served."""
    upstream.behave(PATH, faults.slow(between_events=0.2))
    async with (
        GatewayProcess({"discover": [upstream.url]}, models=["fake-chat"]) as gateway,
        httpx.AsyncClient(
            base_url=gateway.root_url, timeout=30, limits=httpx.Limits(max_connections=1)
        ) as client,
    ):
        async with client.stream("POST", PATH, json={**CHAT, "stream": True}) as answer:
            assert "connection" not in answer.headers
            parts = answer.aiter_raw()
            await anext(parts)
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            async for _ in parts:
                pass
        upstream.reset()
        again = await client.post(PATH, json=CHAT)
        assert (again.status_code, again.headers["connection"]) == (200, "close")
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0


async def test_work_goes_to_another_replica_while_streams_go_on(
    postgres_url, upstream: FakeVllm, embedding_upstream: FakeVllm
):
    """A file that a replica works on when it is told to end is done elsewhere at once: not when
    its streams are over, and not when the lease is."""
    upstream.behave(PATH, faults.endless(between_events=0.05))
    shared = {
        "discover": [upstream.url, embedding_upstream.url],
        "database": {"url": postgres_url},
        "ingestion": {"lease_seconds": 60, "attach_wait_seconds": 0},
        "server": {"shutdown_grace_seconds": 60},
    }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        one = await enter(GatewayProcess(shared, models=["fake-chat", "fake-embedding"]))
        places = {
            "objects": {"kind": "disk", "path": str(one.folder / "understudy-data" / "objects")},
            "vectors": {"uri": str(one.folder / "understudy-data" / "milvus")},
        }
        client = await enter(httpx.AsyncClient(base_url=one.base_url, timeout=30))
        store = (await client.post("/vector_stores", json={"name": "x"})).json()["id"]
        embedding_upstream.behave("/v1/embeddings", faults.slow(before_head=60))
        asked = len(embedding_upstream.requests_to("/v1/embeddings"))
        upload = {"file": ("a.txt", b"The lamp is lit.")}
        file = await client.post("/files", files=upload, data={"purpose": "assistants"})
        where = f"/vector_stores/{store}/files"
        await client.post(where, json={"file_id": file.json()["id"]})
        async with asyncio.timeout(20):
            while len(embedding_upstream.requests_to("/v1/embeddings")) == asked:
                await asyncio.sleep(0.05)
        other = await enter(GatewayProcess({**shared, **places}, models=["fake-embedding"]))
        answer = await enter(
            client.stream("POST", "/chat/completions", json={**CHAT, "stream": True})
        )
        parts = answer.aiter_raw()
        await anext(parts)
        embedding_upstream.reset()
        one.process.send_signal(signal.SIGTERM)
        async with (
            asyncio.timeout(20),
            httpx.AsyncClient(base_url=other.base_url, timeout=30) as second,
        ):
            while (await second.get(where)).json()["data"][0]["status"] != "completed":
                await anext(parts)
        assert one.running
        one.process.send_signal(signal.SIGTERM)


async def test_a_worker_that_dies_is_followed_by_another(upstream):
    """The others answer meanwhile; the new one answers too."""
    async with GatewayProcess(
        {"discover": [upstream.url]}, models=["fake-chat"], arguments=["--workers", "2"]
    ) as gateway:
        before = workers_of(gateway.pid)
        lost = min(before)
        os.kill(lost, signal.SIGKILL)
        for _ in range(20):
            async with httpx.AsyncClient(timeout=30) as client:
                assert (await client.post(gateway.root_url + PATH, json=CHAT)).status_code == 200
        await seen(lambda: len(workers_of(gateway.pid) - {lost}) == 2, "two workers")
        assert workers_of(gateway.pid) - before


async def test_workers_end_with_their_supervisor(upstream):
    """One that is killed leaves no worker behind."""
    async with GatewayProcess(
        {"discover": [upstream.url]}, models=["fake-chat"], arguments=["--workers", "2"]
    ) as gateway:
        workers = workers_of(gateway.pid)
        assert len(workers) == 2
        await asyncio.to_thread(gateway.kill)
        await seen(lambda: not any(map(alive, workers)), "all gone")


async def test_sighup_replaces_workers_and_loses_nothing(upstream):
    """New workers are there before the old ones leave, and the gateway stays ready all the while:
    who sends it requests need not look for another."""
    async with GatewayProcess(
        {"discover": [upstream.url], "server": {"drain_seconds": 3}},
        models=["fake-chat"],
        arguments=["--workers", "2"],
    ) as gateway:
        before = workers_of(gateway.pid)
        gateway.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while len(now := workers_of(gateway.pid)) != 2 or now & before:
            assert time.monotonic() < deadline
            async with httpx.AsyncClient(timeout=30) as client:
                answer = await client.post(gateway.root_url + PATH, json=CHAT)
                assert answer.status_code == 200
                assert (await client.get(gateway.root_url + "/readyz")).status_code == 200
        assert await asyncio.to_thread(gateway.terminate) == 0


async def test_workers_that_cannot_start_end_the_gateway(upstream, tmp_path):
    """With a status that says so, instead of being started again for ever."""
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(AssertionError, match=r"ended with status [1-9]"):
        await GatewayProcess(
            {
                "discover": [upstream.url],
                "models": [{"id": "x", "backends": [{"url": upstream.url, "ca_file": "/nowhere"}]}],
            },
            arguments=["--workers", "2"],
        ).__aenter__()
