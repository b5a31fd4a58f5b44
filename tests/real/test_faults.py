"""A real vLLM that is left, filled up, paused and killed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, InternalServerError

from tests.real.conftest import RealVllm
from tests.real.vllm.server import VllmServer
from tests.support.gateway import GatewayProcess

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(600)]

STORY = [{"role": "user", "content": "Tell me a very long story about the sea."}]
QUEUE = 4
SOON_SECONDS = 10.0
"""On a busy machine; what is cut off would go on for a minute."""
IN_FLIGHT = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([0-9.]+)", re.MULTILINE)


def running(root_url: str) -> float:
    """How many generations vLLM is working on."""
    text = httpx.get(f"{root_url}/metrics", timeout=10).text
    return sum(map(float, IN_FLIGHT.findall(text)))


async def until_idle(root_url: str) -> float:
    """Wait until vLLM works on nothing; the seconds that took."""
    start = time.monotonic()
    while running(root_url) > 0:
        assert time.monotonic() - start < 20, "vLLM still works for a client that left"
        await asyncio.sleep(0.01)
    return time.monotonic() - start


@pytest.fixture
async def client(gateway: GatewayProcess):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


async def test_leaving_mid_stream_ends_the_generation(client, vllm_chat: RealVllm) -> None:
    """A client that closes its stream frees the model at once."""
    stream = await client.chat.completions.create(
        model=vllm_chat.model, messages=STORY, max_tokens=1500, stream=True
    )
    async for _ in stream:
        break
    assert running(vllm_chat.root_url) == 1
    await stream.close()
    assert await until_idle(vllm_chat.root_url) < SOON_SECONDS


async def test_leaving_a_plain_call_ends_the_generation(client, vllm_chat: RealVllm) -> None:
    """A cancelled call that isn't a stream frees the model too."""
    call = asyncio.create_task(
        client.chat.completions.create(model=vllm_chat.model, messages=STORY, max_tokens=1500)
    )
    while running(vllm_chat.root_url) == 0:
        await asyncio.sleep(0.02)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await until_idle(vllm_chat.root_url) < SOON_SECONDS


@pytest.fixture(scope="module")
def fragile() -> Iterator[VllmServer]:
    """A vLLM of this module's own, with a short queue, that may be killed."""
    with VllmServer("chat", extra_args=["--max-num-queued-reqs", str(QUEUE)]) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def before(fragile: VllmServer) -> Iterator[GatewayProcess]:
    """A gateway before it, with short time limits."""
    config = {
        "discover": [f"{fragile.url}/v1"],
        "discover_interval_seconds": 1,
        "timeouts": {"connect": 2, "first_byte": 8, "idle": 8, "total": 120},
    }
    with GatewayProcess(config, models=[fragile.model]) as gateway:
        yield gateway


@pytest.fixture
async def caller(before: GatewayProcess):
    async with AsyncOpenAI(base_url=before.base_url, api_key="none", max_retries=0) as client:
        yield client


async def test_a_full_queue_is_503_streamed_or_not(fragile: VllmServer) -> None:
    """What vLLM can't take is refused with 503 and retry-after; what it takes is completed."""
    # Its time limits are long: waiting in the queue of a busy machine is no fault.
    config = {"discover": [f"{fragile.url}/v1"], "timeouts": {"first_byte": 90}}
    with GatewayProcess(config, models=[fragile.model]) as patient:
        async with AsyncOpenAI(base_url=patient.base_url, api_key="none", max_retries=0) as client:
            await see_a_full_queue(client, fragile)


async def see_a_full_queue(caller: AsyncOpenAI, fragile: VllmServer) -> None:

    async def ask(*, stream: bool) -> str:
        try:
            answer = await caller.chat.completions.create(
                model=fragile.model, messages=STORY, max_tokens=20, stream=stream
            )
            if stream:
                async for _ in answer:
                    pass
        except InternalServerError as error:
            assert error.status_code == 503
            assert error.response.headers["retry-after"].isdigit()
            return "refused"
        return "served"

    for stream in (False, True):
        said = await asyncio.gather(*(ask(stream=stream) for _ in range(16)))
        assert said.count("served") >= QUEUE
        assert said.count("refused") >= 1


async def test_a_paused_server_costs_the_time_limit_and_no_more(
    caller, fragile: VllmServer
) -> None:
    """SIGSTOP: a new call is 504 after `first_byte`; after SIGCONT the next one works."""
    fragile.pause()
    try:
        start = time.monotonic()
        with pytest.raises(APIStatusError) as late:
            await caller.chat.completions.create(model=fragile.model, messages=STORY, max_tokens=2)
        assert late.value.status_code == 504
        assert 7.9 < time.monotonic() - start < 15
    finally:
        fragile.resume()
    answer = await caller.chat.completions.create(model=fragile.model, messages=STORY, max_tokens=2)
    assert answer.choices


async def test_a_kill_mid_stream_is_an_error_and_not_an_end(
    caller, before: GatewayProcess, fragile: VllmServer
) -> None:
    """SIGKILL: the stream raises in the SDK, later calls are 503, a restart is found."""
    stream = await caller.chat.completions.create(
        model=fragile.model, messages=STORY, max_tokens=1500, stream=True
    )
    with pytest.raises(APIError):
        async for event in stream:
            if event.choices and event.choices[0].delta.content:
                fragile.kill()
    with pytest.raises(InternalServerError) as gone:
        await caller.chat.completions.create(model=fragile.model, messages=STORY, max_tokens=2)
    assert gone.value.status_code == 503
    assert gone.value.code == "upstream_unreachable"
    assert fragile.model in before.listed_models()

    fragile.start()
    fragile.wait_ready()
    answer = await caller.chat.completions.create(model=fragile.model, messages=STORY, max_tokens=2)
    assert answer.choices
