"""The configuration is read again on SIGHUP and when its file changes, without dropping a request;
a file that is wrong changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import Any

import httpx
import pytest
import yaml

from tests.support.expect import refused
from tests.support.gateway import GatewayProcess
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}


def models(*servers: FakeVllm, name: str = "fake-chat") -> dict[str, Any]:
    backends = [{"url": server.url, "model": "fake-chat"} for server in servers]
    return {"models": [{"id": name, "kind": "chat", "backends": backends}]}


def write(gateway: GatewayProcess, text: str | dict[str, Any]) -> None:
    """Put a new file in the place of the old one, as editors do."""
    if isinstance(text, dict):
        text = yaml.safe_dump({"server": gateway.config["server"], **text})
    new = gateway.folder / "new.yaml"
    new.write_text(text)
    new.replace(gateway.folder / "understudy.yaml")


def hang_up(gateway: GatewayProcess) -> None:
    os.kill(gateway.pid, signal.SIGHUP)


async def until_logged(gateway: GatewayProcess, words: str, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while gateway.log().count(words) < times:
            await asyncio.sleep(0.05)


async def metric(client: httpx.AsyncClient, pattern: str) -> float:
    page = (await client.get("/metrics")).text
    found = re.search(rf"^{pattern} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_change_under_load_loses_no_request(upstream):
    """Requests in progress end where they are, new ones go to the new server, and the old one's
    connections are closed when it has nothing left."""
    async with (
        FakeVllm(["fake-chat"]) as successor,
        GatewayProcess(models(upstream), models=["fake-chat"]) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
    ):
        upstream.behave(PATH, faults.slow(between_events=0.3), times=1)
        answers: list[httpx.Response] = []
        over = asyncio.Event()

        async def load() -> None:
            while not over.is_set():
                answers.append(await client.post(PATH, json=CHAT))

        async with asyncio.TaskGroup() as group:
            long = group.create_task(client.post(PATH, json={**CHAT, "stream": True}))
            await upstream.wait_for_request(path=PATH)
            for _ in range(4):
                group.create_task(load())
            await asyncio.sleep(0.3)
            write(gateway, models(successor))
            hang_up(gateway)
            await successor.wait_for_request(n=20, path=PATH, within=30)
            over.set()
        assert {answer.status_code for answer in answers} == {200}
        assert long.result().content.endswith(b"data: [DONE]\n\n")
        await upstream.until_connections(0)
        before = len(upstream.requests)
        for _ in range(5):
            assert (await client.post(PATH, json=CHAT)).status_code == 200
        assert len(upstream.requests) == before
        assert await metric(client, r'understudy_config_reloads_total\{.*"applied"\}') >= 1


async def test_a_changed_file_is_enough(upstream):
    """Nobody has to send a signal; what needs a restart is named."""
    async with (
        GatewayProcess(models(upstream), models=["fake-chat"]) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
    ):
        write(
            gateway,
            models(upstream, name="other")
            | {"limits": {"max_body_bytes": 99}, "routing": {"served_by_header": True}},
        )
        await until_logged(gateway, "Changed, and needs a restart: limits")
        refused(await client.post(PATH, json=CHAT), 404)
        answer = await client.post(PATH, json={**CHAT, "model": "other"})
        assert answer.headers["x-understudy-backend"] == upstream.root_url


WRONG = {
    "a misspelt key": ("routing: {strategie: weighted}", "strategie"),
    "a value": ("routing: {strategy: luck}", "routing.strategy"),
    "an affinity": ("routing: {affinity: [luck]}", "routing.affinity"),
    "no YAML": ("models: [", "not valid YAML"),
    "a missing file": (
        "discover: [{url: 'https://vllm:1/v1', ca_file: /nowhere/ca.pem}]",
        "discover.0.ca_file",
    ),
    "nothing": ("", "no model server is left"),
}


async def test_a_wrong_file_changes_nothing(upstream):
    """The log names what is wrong, a metric shows it, and the gateway serves on; a right one
    mends it."""
    async with (
        GatewayProcess(models(upstream), models=["fake-chat"]) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client,
    ):
        for n, (text, named) in enumerate(WRONG.values(), 1):
            write(gateway, text)
            hang_up(gateway)
            await until_logged(gateway, "The configuration is wrong", n)
            line = [one for one in gateway.log().splitlines() if "is wrong" in one][-1]
            assert named in line, line
            assert (await client.post(PATH, json=CHAT)).status_code == 200
            assert await metric(client, "understudy_config_failed") == 1
        write(gateway, models(upstream, name="other"))
        hang_up(gateway)
        await until_logged(gateway, "The configuration has changed: models")
        assert await metric(client, "understudy_config_failed") == 0
        assert gateway.running


async def test_every_worker_takes_a_change_over(upstream):
    """Each watches the file for itself."""
    async with (
        GatewayProcess(
            models(upstream), models=["fake-chat"], arguments=["--workers", "2"]
        ) as gateway,
    ):
        # One that begins after the change has nothing to take over.
        await until_logged(gateway, "Application startup complete", 2)
        write(gateway, models(upstream, name="other"))
        await until_logged(gateway, "The configuration has changed: models", 2)
        for _ in range(10):  # each over a connection of its own, to whichever worker
            async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
                answer = await client.post(PATH, json={**CHAT, "model": "other"})
                assert answer.status_code == 200
