"""Four limits bound a call to a model server: connect, first byte, idle, total. Running into one is
a 504 that names it, or the last event of a stream that had begun; a slow reader runs into none."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import openai
import pytest

from tests.support.expect import error_in, payloads, refused
from tests.support.gateway import HOST
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import Exchange, FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
LONG = 30.0
TOLERANCE_SECONDS = 0.6


def limited(url: str, **limits: float) -> InProcessGateway:
    """A gateway whose one backend has these limits; the others are long."""
    timeouts = {"connect": LONG, "first_byte": LONG, "idle": LONG, "total": LONG, **limits}
    backend = {"url": url, "timeouts": timeouts}
    return InProcessGateway(
        configured=[{"id": "fake-chat", "kind": "chat", "backends": [backend]}],
        discover_interval_seconds=LONG,
    )


async def timed(gateway: InProcessGateway, body: dict[str, Any]) -> tuple[httpx.Response, float]:
    clock = asyncio.get_running_loop().time
    async with gateway.client() as client:
        begun = clock()
        answer = await client.post(PATH, json=body)
        return answer, clock() - begun


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["json", "stream"])
async def test_a_server_that_does_not_accept_is_given_up(body):
    """No connection within `connect` seconds: 504, and the SDK calls it a server's error."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind((HOST, 0))
        listener.listen(0)
        first.connect(listener.getsockname())  # the backlog is full now: SYNs go unanswered
        url = f"http://{HOST}:{listener.getsockname()[1]}/v1"
        async with limited(url, connect=0.3) as gateway:
            answer, seconds = await timed(gateway, body)
            async with openai.AsyncOpenAI(
                base_url=gateway.base_url, api_key="none", max_retries=0
            ) as client:
                with pytest.raises(openai.InternalServerError):
                    await client.chat.completions.create(**body)
    error = refused(answer, 504)
    assert error["code"] == "upstream_connect_timeout"
    assert "0.3 s" in error["message"]
    assert 0.3 <= seconds < 0.3 + TOLERANCE_SECONDS


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (CHAT, faults.hangs_before_head()),
        (STREAM, faults.hangs_before_head()),
        (STREAM, faults.hangs_after_head()),
    ],
    ids=["json", "stream", "stream with a head"],
)
async def test_silence_before_the_first_byte_is_limited(upstream, body, fault):
    """A head of a stream is no sign of life: vLLM sends it before it has a token."""
    upstream.behave(PATH, fault)
    async with limited(upstream.url, first_byte=0.4) as gateway:
        answer, seconds = await timed(gateway, body)
        request = upstream.requests_to(PATH)[-1]
        await until(lambda: request.gone is not None, "end of the work")
        span = await gateway.span("chat fake-chat")
    error = refused(answer, 504)
    assert error["type"] == "timeout_error"
    assert "for the first byte" in error["message"]
    assert "0.4 s" in error["message"]
    assert 0.4 <= seconds < 0.4 + TOLERANCE_SECONDS
    assert span.attributes["error.type"] == "upstream_timeout"


async def test_silence_inside_a_plain_answer_is_limited(upstream):
    """A body that stops coming is 504, for nothing of it is with the caller yet."""
    upstream.behave(PATH, faults.hangs_after(events=1))
    async with limited(upstream.url, idle=0.4) as gateway:
        answer, seconds = await timed(gateway, CHAT)
    assert "for the next bytes" in refused(answer, 504)["message"]
    assert 0.4 <= seconds < 0.4 + TOLERANCE_SECONDS


async def test_silence_inside_a_stream_ends_it_with_an_error(upstream):
    """A stream that falls silent gets an error event that names the limit, and no `[DONE]`."""
    upstream.behave(PATH, faults.hangs_after(events=3))
    async with limited(upstream.url, idle=0.4) as gateway:
        answer, seconds = await timed(gateway, STREAM)
        request = upstream.requests_to(PATH)[-1]
        await until(lambda: request.gone is not None, "end of the work")
    assert answer.status_code == 200
    *good, last = payloads(answer.content)
    assert len(good) == 3
    assert "for the next bytes" in error_in(last)["message"]
    assert 0.4 <= seconds < 0.5 + TOLERANCE_SECONDS


async def test_a_steady_stream_is_not_silent(upstream):
    """The idle limit is on each silence, not on their sum."""
    upstream.behave(PATH, faults.slow(between_events=0.2))
    async with limited(upstream.url, idle=0.6) as gateway:
        answer, seconds = await timed(gateway, STREAM)
    assert seconds > 1.2
    assert answer.content.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_never_ends_is_ended(upstream):
    """The total limit ends what would go on for ever, with an error event."""
    upstream.behave(PATH, faults.endless(between_events=0.02))
    async with limited(upstream.url, total=0.6) as gateway:
        answer, seconds = await timed(gateway, STREAM)
        await upstream.until_connections(0)
    assert answer.status_code == 200
    *good, last = payloads(answer.content)
    assert len(good) > 5
    assert "in total" in error_in(last)["message"]
    assert 0.6 <= seconds < 0.6 + TOLERANCE_SECONDS


async def test_the_total_covers_a_plain_answer_too(upstream):
    """An answer that drips never gets past it."""

    async def dripping(exchange: Exchange) -> None:
        await exchange.raw(exchange.head_of(exchange.answer))
        while True:
            await exchange.raw(b" ")
            await asyncio.sleep(0.05)

    upstream.behave(PATH, dripping)
    async with limited(upstream.url, total=0.6) as gateway:
        answer, seconds = await timed(gateway, CHAT)
    assert "in total" in refused(answer, 504)["message"]
    assert 0.6 <= seconds < 0.6 + TOLERANCE_SECONDS


async def test_a_slow_reader_is_not_punished(upstream):
    """While the caller doesn't read, the server can't send; that is nobody's silence."""
    upstream.behave(PATH, faults.gigantic(12_000_000))
    async with limited(upstream.url, idle=0.4) as gateway:
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect((HOST, gateway.port))
            caller.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=caller, limit=4096)
            body = json.dumps(STREAM).encode()
            writer.write(
                f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(1.5)
            received = await reader.read()
            writer.close()
    assert b"data: [DONE]\n\n" in received[-100:]
    assert b'"error"' not in received
    assert len(received) > 12_000_000


async def test_a_timeout_is_not_tried_elsewhere(upstream):
    """A second server wouldn't be quicker, and the first one has done its work for nothing."""
    async with FakeVllm(["fake-chat"]) as other:
        upstream.behave(PATH, faults.hangs_before_head())
        async with InProcessGateway(
            configured=[
                {
                    "id": "fake-chat",
                    "kind": "chat",
                    "backends": [{"url": upstream.url}, {"url": other.url, "priority": 1}],
                }
            ],
            timeouts={"first_byte": 0.3},
        ) as gateway:
            answer, _ = await timed(gateway, CHAT)
    refused(answer, 504)
    assert not [request for request in other.requests if request.method == "POST"]


async def test_each_backend_may_have_its_own_limits(upstream):
    """A backend's `timeouts` stand in place of the general ones."""
    upstream.behave(PATH, faults.slow(before_head=0.5))
    backend = {"url": upstream.url, "timeouts": {"first_byte": 5.0}}
    async with InProcessGateway(
        configured=[{"id": "fake-chat", "kind": "chat", "backends": [backend]}],
        timeouts={"first_byte": 0.2},
    ) as gateway:
        answer, _ = await timed(gateway, CHAT)
    assert answer.status_code == 200
