"""What the gateway holds in memory doesn't grow with what passes through it: a thousand streams are
a few tens of megabytes, and a caller who doesn't read makes the model server wait."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.serving import allow_many_sockets
from tests.support.gateway import HOST, GatewayProcess
from tests.support.upstream import Exchange, FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
).encode()
REQUEST = (
    f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(BODY)}\r\n\r\n"
).encode() + BODY
STREAMS = 1000
MAX_RSS_MIB = 250
MAX_GROWTH_MIB = 30


@pytest.fixture(autouse=True)
def many_sockets():
    """This process holds both ends of what the gateway is between."""
    allow_many_sockets()


@pytest.fixture
async def gateway(upstream: FakeVllm):
    async with GatewayProcess(
        {"discover": [upstream.url], "limits": {"max_upstream_connections": 2 * STREAMS}},
        models=["fake-chat"],
    ) as gateway:
        yield gateway


def rss_mib(gateway: GatewayProcess) -> float:
    """What the process holds now."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def connect(gateway: GatewayProcess) -> asyncio.StreamReader:
    """Send the request; the answer is the caller's to read."""
    reader, writer = await asyncio.open_connection(HOST, gateway.port)
    writer.write(REQUEST)
    reader.writer = writer  # keeps it open
    return reader


@asynccontextmanager
async def callers_who_do_not_read(gateway: GatewayProcess, count: int) -> AsyncIterator[None]:
    """They send the request, take the first bytes of the answer, and then nothing more."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for _ in range(count):
            caller = stack.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.setblocking(False)
            await loop.sock_connect(caller, (HOST, gateway.port))
            await loop.sock_sendall(caller, REQUEST)
            assert (await loop.sock_recv(caller, 15)).startswith(b"HTTP/1.1 200")
        yield


async def test_a_thousand_streams_at_once_are_all_complete(gateway, upstream):
    """All of them open at the same time, none cut, and the process stays small."""
    held = asyncio.Event()

    async def holding(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.events(exchange.answer.events[:3])
        await held.wait()
        await exchange.events(exchange.answer.events[3:], between=0.05)
        await exchange.end_stream()

    upstream.behave(PATH, holding)
    readers: list[asyncio.StreamReader] = []
    begun: list[bytes] = []
    for _ in range(0, STREAMS, 100):  # in hundreds, so as not to test the backlog
        readers += await asyncio.gather(*(connect(gateway) for _ in range(100)))
        begun += await asyncio.gather(*(one.readuntil(b"\n\n\r\n") for one in readers[-100:]))
    assert all(head.startswith(b"HTTP/1.1 200") for head in begun)
    assert upstream.open_connections >= STREAMS
    held.set()
    rest = await asyncio.gather(*(reader.read() for reader in readers))
    answers = [first + more for first, more in zip(begun, rest, strict=True)]
    rss = rss_mib(gateway)
    for reader in readers:
        reader.writer.close()
    assert all(b"data: [DONE]\n\n\r\n" in answer for answer in answers)
    assert all(answer.endswith(b"0\r\n\r\n") for answer in answers)
    assert {answer.count(b"data: ") for answer in answers} == {10}
    assert rss < MAX_RSS_MIB, f"{rss:.0f} MiB"


@pytest.mark.parametrize(
    "fault",
    [faults.endless(between_events=0.0), faults.gigantic(400_000_000)],
    ids=["endless", "gigantic"],
)
async def test_a_caller_who_does_not_read_is_not_read_for(gateway, upstream, fault):
    """The stream stops at its source; the gateway keeps only what is in flight."""
    for _ in range(3):
        await (await connect(gateway)).read()  # warm: what a first stream allocates
    before = rss_mib(gateway)
    upstream.behave(PATH, fault)
    most = before
    async with callers_who_do_not_read(gateway, 1):
        for _ in range(30):
            await asyncio.sleep(0.1)
            most = max(most, rss_mib(gateway))
    assert most - before < MAX_GROWTH_MIB, f"{before:.0f} MiB grew to {most:.0f} MiB"
    assert (await asyncio.to_thread(gateway.get, "/livez"))[0] == 200


async def test_many_slow_callers_hold_little_each(gateway, upstream):
    """Fifty callers that don't read: each holds no more than buffers of fixed size."""
    before = rss_mib(gateway)
    upstream.behave(PATH, faults.gigantic(20_000_000))
    async with callers_who_do_not_read(gateway, 50):
        await asyncio.sleep(2)
        grown = rss_mib(gateway) - before
    assert grown < 50, f"{grown:.0f} MiB"
