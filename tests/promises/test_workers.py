"""Several workers are one gateway: any of them answers, `/metrics` adds them up, and they end
together. A management port keeps probes and metrics off the public one."""

from __future__ import annotations

import asyncio
import json
import re
import time

import httpx
import pytest

from tests.support.expect import refused
from tests.support.gateway import HOST, GatewayProcess, free_port
from tests.support.processes import alive, workers_of
from tests.support.upstream import faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
CALLS = 60


def counted(metrics: str, name: str) -> float:
    """The sum of a metric's series."""
    lines = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, lines))


async def test_two_workers_are_one_gateway(upstream):
    """Both answer, and whichever is asked for metrics has the sum of both."""
    async with GatewayProcess(
        {"discover": [upstream.url]}, models=["fake-chat"], arguments=["--workers", "2"]
    ) as gateway:
        for _ in range(CALLS):
            async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
                assert (await client.post(PATH, json=CHAT)).status_code == 200
        asked = [request for request in upstream.requests if request.path == "/v1/models"]
        assert len(asked) >= 2  # each worker finds the models by itself
        pages = []
        for _ in range(6):
            async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
                pages.append((await client.get("/metrics")).text)
        count = "gen_ai_client_operation_duration_seconds_count"
        assert {counted(page, count) for page in pages} == {CALLS}
        assert {counted(page, "understudy_upstream_up") for page in pages} == {1}
        # The request for the metrics itself is in progress.
        assert {counted(page, "http_server_active_requests") for page in pages} == {1}
        workers = workers_of(gateway.pid)
        assert len(workers) == 2
        begun = time.monotonic()
        await asyncio.to_thread(gateway.terminate)
        assert time.monotonic() - begun < 10
        assert [pid for pid in workers if alive(pid)] == []


async def test_sigterm_lets_running_requests_end(upstream):
    """A stream that runs when SIGTERM comes is answered to its end."""
    upstream.behave(PATH, faults.slow(between_events=0.15))
    async with GatewayProcess(
        {"discover": [upstream.url]}, models=["fake-chat"], arguments=["--workers", "2"]
    ) as gateway:
        async with (
            httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
            client.stream("POST", PATH, json={**CHAT, "stream": True}) as answer,
        ):
            parts = answer.aiter_raw()
            received = await anext(parts)
            ending = asyncio.create_task(asyncio.to_thread(gateway.terminate))
            received += b"".join([part async for part in parts])
        await ending
    assert received.endswith(b"data: [DONE]\n\n")


async def test_past_the_grace_a_stream_is_cut_and_says_so(upstream):
    """A stream that doesn't end in time gets an error event, never a quiet end."""
    upstream.behave(PATH, faults.endless(between_events=0.05))
    async with GatewayProcess(
        {"discover": [upstream.url], "server": {"shutdown_grace_seconds": 1}}, models=["fake-chat"]
    ) as gateway:
        async with (
            httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
            client.stream("POST", PATH, json={**CHAT, "stream": True}) as answer,
        ):
            parts = answer.aiter_raw()
            received = await anext(parts)
            begun = time.monotonic()
            ending = asyncio.create_task(asyncio.to_thread(gateway.terminate))
            received += b"".join([part async for part in parts])
        await ending
        assert time.monotonic() - begun < 6
    last = received.rstrip(b"\n").rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "service_unavailable"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_management_port_has_the_probes(upstream, workers):
    """They are there and only there; the API is on the public port and only there."""
    management = free_port()
    async with ManagedProcess(
        {
            "discover": [upstream.url],
            "server": {"management_port": management, "workers": workers},
        },
        management=management,
    ) as gateway:
        async with (
            httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as public,
            httpx.AsyncClient(base_url=f"http://{HOST}:{management}", timeout=30) as private,
        ):
            assert (await public.post(PATH, json=CHAT)).status_code == 200
            for path in ("/livez", "/readyz", "/metrics"):
                refused(await public.get(path), 404)
                assert (await private.get(path)).status_code == 200, path
            assert (await private.get("/readyz")).json()["servers"] == {"up": 1, "total": 1}
            assert "gen_ai_client_token_usage" in (await private.get("/metrics")).text
            for path in ("/v1/models", "/v1/health"):
                assert (await public.get(path)).status_code == 200
                refused(await private.get(path), 404)
            refused(await private.post(PATH, json=CHAT), 404)
        begun = time.monotonic()
        await asyncio.to_thread(gateway.terminate)
        assert time.monotonic() - begun < 10


class ManagedProcess(GatewayProcess):
    """A gateway that is asked on its management port whether it lives."""

    def __init__(self, config: dict, management: int) -> None:
        super().__init__(config, models=["fake-chat"])
        self.management = management

    def get(self, path: str, timeout: float = 30.0) -> tuple[int, bytes]:
        port, self.port = self.port, self.management if path == "/livez" else self.port
        try:
            return super().get(path, timeout)
        finally:
            self.port = port
