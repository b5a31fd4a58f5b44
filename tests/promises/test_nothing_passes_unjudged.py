"""A guard that gives no verdict is an error, never a yes: guards fail closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.detectors import DetectorServer
from tests.support.expect import refused
from tests.support.gateway import free_port
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

GUARD = "llama-guard-3-8b"
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([GUARD], reply="safe") as started:
        yield started


@pytest.fixture(scope="module")
def detectors():
    with DetectorServer({"idiot": "hap"}) as started:
        yield started


@pytest.fixture(scope="module")
async def gateway(server, detectors) -> AsyncIterator[InProcessGateway]:
    words = {"name": "words", "url": detectors.url, "timeout_seconds": 0.3}
    nowhere = {"name": "nowhere", "url": f"http://127.0.0.1:{free_port()}"}
    async with InProcessGateway(
        discover=[server.url],
        models=[GUARD],
        moderation={"detectors": [words, nowhere]},
        timeouts={"first_byte": 0.3},
    ) as started:
        yield started


@pytest.fixture
async def http(gateway, server, detectors) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client
    server.reset()
    server.vllm.reply = "safe"
    detectors.fail_with, detectors.raw, detectors.seconds = None, None, 0


def requests_for(guard: str) -> list[tuple[str, dict[str, Any]]]:
    messages = [{"role": "user", "content": "You idiot"}]
    return [
        ("/v1/moderations", {"input": "You idiot", "model": guard}),
        ("/v1/moderations", {"input": ["a", "You idiot"], "model": guard}),
        ("/v1/safety/run-shield", {"shield_id": guard, "messages": messages}),
    ]


async def each_is_refused(http: httpx.AsyncClient, guard: str, status: int) -> None:
    for path, body in requests_for(guard):
        error = refused(await http.post(path, json=body), status)
        assert "idiot" not in error["message"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (faults.vllm_error(500), 500),
        (faults.vllm_error(503), 503),
        (faults.unauthorized(), 502),
        (faults.hangs_before_head(), 504),
    ],
)
async def test_a_guard_model_that_fails(http, server, fault, status):
    """The status is that of a chat with it."""
    server.behave(PATH, fault)
    await each_is_refused(http, GUARD, status)


@pytest.mark.parametrize("reply", ["", "I'd rather not say.", "Yes", "You idiot"])
async def test_a_guard_model_that_rambles(http, server, reply):
    """What it said is not shown: it may repeat what was asked."""
    server.vllm.reply = reply
    await each_is_refused(http, GUARD, 502)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"fail_with": 500}, 502),
        ({"fail_with": 503}, 503),
        ({"raw": b"[]"}, 502),
        ({"seconds": 1.0}, 504),
    ],
)
async def test_a_detector_that_fails(http, detectors, told, status):
    """Or answers something else, or not in time."""
    for name, value in told.items():
        setattr(detectors, name, value)
    await each_is_refused(http, "words", status)


async def test_a_detector_that_is_not_there(http):
    """A retry may find it."""
    await each_is_refused(http, "nowhere", 503)


async def test_who_leaves_ends_the_judgement(gateway, server):
    """The guard's server stops working for nobody."""
    server.reset()
    server.behave(PATH, faults.hangs_before_head())
    async with gateway.client() as http:
        for path, body in requests_for(GUARD)[::2]:
            before = len(server.requests_to(PATH))
            task = asyncio.create_task(http.post(path, json=body))
            await server.wait_for_request(before + 1, PATH)
            task.cancel()
            await until(
                lambda: (
                    gateway.spans()
                    and gateway.spans()[-1].attributes.get("error.type") == "client_disconnected"
                ),
                "a departure",
                within=0.25,
            )
    server.reset()
