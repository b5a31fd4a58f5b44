"""Connections to a model server: kept, bounded, replaced when stale, and read as HTTP/1.1 says."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from adapters.vllm import connection as connection_module
from adapters.vllm import pool as pool_module
from adapters.vllm.connection import Connection, StaleConnection
from adapters.vllm.pool import ConnectionPool
from adapters.vllm.server import VllmServer
from gateway.errors import (
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.settings import BackendSettings, LimitSettings, TimeoutSettings
from tests.support.upstream import Exchange, FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

PATH = "/v1/chat/completions"
BODY = b'{"model":"fake-chat","messages":[{"role":"user","content":"hi"}]}'
STREAM = BODY[:-1] + b',"stream":true}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def request_head(body: bytes = BODY) -> bytes:
    return HEAD + b"content-length: %d\r\n\r\n" % len(body)


@pytest.fixture
async def pool(upstream: FakeVllm):
    made = make(upstream.port)
    yield made
    made.close()


@pytest.fixture
async def server(upstream: FakeVllm):
    made = VllmServer(
        BackendSettings(url=upstream.url), timeouts=TimeoutSettings(), limits=LimitSettings()
    )
    yield made
    await made.aclose()


def make(port: int, **more: Any) -> ConnectionPool:
    options: dict[str, Any] = {
        "tls": None,
        "timeouts": TimeoutSettings(connect=0.5),
        "limit": 3,
        "max_answer_bytes": 1_000_000,
        "heartbeat": 15.0,
        **more,
    }
    return ConnectionPool("127.0.0.1", port, **options)


async def ask(pool: ConnectionPool, **options: Any) -> Connection:
    connection = await pool.acquire(**options)
    try:
        await connection.request(request_head(), BODY)
    finally:
        pool.release(connection)
    return connection


async def test_a_connection_is_used_again(pool, upstream):
    """The same socket for one request after the other."""
    first = await ask(pool)
    assert await ask(pool) is first
    assert (first.status, first.requests) == (200, 2)
    assert pool.open_connections == upstream.open_connections == 1


async def test_the_one_used_last_is_used_next(pool):
    """So that the others can grow old and be closed."""
    one, two = await pool.acquire(), await pool.acquire()
    for connection in (one, two):
        await connection.request(request_head(), BODY)
        pool.release(connection)
    assert await pool.acquire() is two


async def test_an_idle_connection_is_closed(pool, upstream, monkeypatch):
    """Before the server closes it."""
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.2)
    await ask(pool)
    assert upstream.open_connections == 1
    await upstream.until_connections(0, within=3)  # by itself it would be after four
    await asyncio.sleep(0.15)
    assert pool.open_connections == 0
    assert pool._sweeper is None  # nothing to watch, nothing that runs


async def test_what_the_server_closed_is_not_used(pool, upstream):
    """A connection that is known to be gone is passed over."""
    first = await ask(pool)
    upstream.close_idle()
    await upstream.until_connections(0)
    await asyncio.sleep(0.01)
    assert await ask(pool) is not first


async def test_a_connection_that_turns_out_stale_says_so(pool, upstream):
    """Closed by the server while the request was on its way: nothing was worked on."""
    upstream.behave(PATH, faults.closes_when_idle(after=0.0), times=1)
    connection = await pool.acquire()
    await connection.request(request_head(), BODY)
    upstream.behave(PATH, faults.closes_before_head(), times=1)
    upstream.close_idle()
    with pytest.raises((StaleConnection, UpstreamUnreachable)):
        await connection.request(request_head(), BODY)
    pool.release(connection)


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["json", "stream"])
async def test_a_stale_connection_is_retried(server, upstream, body):
    """The request goes out again on a new connection, and the caller sees nothing of it."""
    for _ in range(10):
        upstream.behave(PATH, faults.closes_when_idle(after=0.0), times=1)
        answer = await server.send(PATH, body)
        while body is STREAM and await answer.next_block() is not None:
            pass
        answer.close()
        again = await server.send(PATH, body)  # in the moment in which the other is closed
        assert again.status == 200
        again.close()


async def test_a_fresh_connection_that_breaks_is_not_retried(server, upstream):
    """The server may have worked on it."""
    upstream.behave(PATH, faults.resets_before_head())
    with pytest.raises(UpstreamError):
        await server.send(PATH, BODY)
    assert len(upstream.requests_to(PATH)) == 1


async def test_a_used_connection_that_breaks_is_retried_once(server, upstream):
    """Not for ever."""
    (await server.send(PATH, BODY)).close()
    upstream.behave(PATH, faults.resets_before_head())
    with pytest.raises(UpstreamError):
        await server.send(PATH, BODY)
    assert len(upstream.requests_to(PATH)) == 3


async def test_the_limit_is_told_at_once(pool, upstream):
    """503 with a code and retry-after; a place that is free again is given again."""
    taken = [await pool.acquire() for _ in range(3)]
    with pytest.raises(UpstreamUnavailable) as raised:
        await pool.acquire()
    assert (raised.value.code, raised.value.retry_after) == ("too_many_connections", 1)
    taken[0].abort()
    pool.release(taken[0])
    await asyncio.sleep(0.01)
    assert (await pool.acquire()).alive


async def test_the_limit_counts_those_being_opened(upstream):
    """So that a burst doesn't slip through."""
    pool = make(upstream.port, limit=5)
    results = await asyncio.gather(*(pool.acquire() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(one, Connection) for one in results) == 5
    assert pool.open_connections == 5
    pool.close()
    await upstream.until_connections(0)


async def test_every_opening_and_closing_is_counted(upstream):
    """For the metric: +1 and -1, and nothing left."""
    changes: list[int] = []
    pool = make(upstream.port, changed=changes.append)
    await ask(pool)
    (await pool.acquire(fresh=True)).abort()
    pool.close()
    await upstream.until_connections(0)
    await asyncio.sleep(0.01)
    assert sorted(changes) == [-1, -1, 1, 1]
    assert pool.open_connections == 0


async def raising(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.1.2.3', 80)"),
         UpstreamUnreachable, "Connection refused"),
        (OSError("Multiple exceptions: [Errno 111] ('10.1.2.3', 80)"),
         UpstreamUnreachable, "OSError"),
        (OSError(113, "x ('10.1.2.3', 80)"), UpstreamUnreachable, "No route to host"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
         UpstreamError, "TLS connection"),
        (ConnectionResetError(104, "reset"), UpstreamUnreachable, "reset"),
    ],
)  # fmt: skip
async def test_why_no_connection_came_about(pool, monkeypatch, error, expected, words):
    """In words, without an address, and as something that may be tried elsewhere."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_connection", lambda *_, **__: raising(error))
    with pytest.raises(expected) as raised:
        await pool.acquire()
    assert words in raised.value.message
    assert "10.1.2.3" not in raised.value.message
    assert raised.value.nothing_sent == (expected is UpstreamUnreachable)


async def test_a_connection_that_does_not_come_about_in_time(pool, monkeypatch):
    """504, and nothing was sent."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_connection", lambda *_, **__: asyncio.sleep(60))
    with pytest.raises(UpstreamConnectTimeout) as raised:
        await pool.acquire()
    assert raised.value.nothing_sent
    assert "0.5 s" in raised.value.message
    assert pool._opening == 0


# -- HTTP ------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def answer_to(pool: ConnectionPool, upstream: FakeVllm, raw: bytes, then: Any) -> Connection:
    upstream.behave(PATH, faults.sends(raw, then=then), times=1)
    return await ask(pool)


async def test_100_continue_comes_before_the_answer(pool, upstream):
    """And is no answer itself; its headers are forgotten."""
    raw = b"HTTP/1.1 100 Continue\r\nx-a: 1\r\n\r\n" + OK + b"content-length: 2\r\n\r\n{}"
    connection = await answer_to(pool, upstream, raw, "keep")
    assert (connection.status, connection.take_blocks()) == (200, [b"{}"])
    assert b"x-a" not in dict(connection.headers)
    assert connection.reusable


async def test_103_early_hints_too(pool, upstream):
    """Any number of them."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    raw = hints * 3 + OK + b"content-length: 2\r\n\r\n{}"
    connection = await answer_to(pool, upstream, raw, "keep")
    assert (connection.status, connection.take_blocks()) == (200, [b"{}"])


async def test_a_body_without_a_length_ends_with_the_connection(pool, upstream):
    """As HTTP/1.0 servers answer; the connection is gone then."""
    connection = await answer_to(pool, upstream, OK + b'\r\n{"a":1}', "close")
    assert b"".join(connection.take_blocks()) == b'{"a":1}'
    assert not connection.reusable


async def test_such_a_body_cut_by_a_reset_is_not_whole(pool, upstream):
    """Only a clean end is an end."""
    with pytest.raises(UpstreamError):
        await answer_to(pool, upstream, OK + b'\r\n{"a":1}', "reset")


async def test_an_answer_that_closes_is_not_kept(pool, upstream):
    """`connection: close`, whatever the length."""
    raw = OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"
    connection = await answer_to(pool, upstream, raw, "close")
    assert connection.take_blocks() == [b"{}"]
    assert not connection.reusable


@pytest.mark.parametrize(
    "surplus", [OK + b"content-length: 3\r\n\r\n666", b"nonsense", b"\r\n\r\nHTTP/1.1 "]
)
async def test_an_answer_before_the_request_is_not_mixed_up(pool, upstream, surplus):
    """Bytes after an answer's end make the connection unusable; they never become the next one."""
    raw = OK + b"content-length: 2\r\n\r\n{}" + surplus
    connection = await answer_to(pool, upstream, raw, "keep")
    assert b"".join(connection.take_blocks()) == b"{}"
    assert not connection.reusable
    again = await ask(pool)
    assert b"chat.completion" in b"".join(again.take_blocks())


async def test_an_answer_to_nothing_is_not_mixed_up_either(pool, upstream):
    """One that comes while the connection is idle closes it."""
    first = await ask(pool)
    first.take_blocks()
    [served] = upstream._connections
    served.transport.write(OK + b"content-length: 3\r\n\r\n666")
    await upstream.until_connections(0)
    again = await ask(pool)
    assert again is not first
    assert b"chat.completion" in b"".join(again.take_blocks())


async def test_an_answer_without_a_body(pool, upstream):
    """204 has none."""
    connection = await answer_to(pool, upstream, b"HTTP/1.1 204 No Content\r\n\r\n", "keep")
    assert (connection.status, connection.take_blocks()) == (204, [])


def large(body: bytes, length: int | None = None) -> bytes:
    """A whole answer with this body, as it goes over the wire."""
    declared = len(body) if length is None else length
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % declared + body


async def test_a_large_body_arrives_whole_and_the_connection_is_used_again(pool, upstream):
    """Past the parser, and the next answer on the same connection is read like any other."""
    body = b'{"data":"' + bytes(range(65, 91)) * 20_000 + b'"}'
    upstream.behave(PATH, faults.sends(large(body), then="keep"), times=1)
    connection = await pool.acquire()
    await connection.request(request_head(), BODY)
    assert b"".join(connection.take_blocks()) == body
    pool.release(connection)
    assert await ask(pool) is connection
    assert b"chat.completion" in b"".join(connection.take_blocks())


async def test_a_large_body_cut_short_is_not_whole(pool, upstream):
    """The end of the connection before the declared length is an error."""
    upstream.behave(PATH, faults.sends(large(b"x" * 200_000, length=300_000), then="close"))
    with pytest.raises(UpstreamError, match="before its answer was complete"):
        await ask(pool)


async def test_more_than_the_declared_length_is_refused(pool, upstream):
    """What follows a large body must not become the next answer."""
    answer = large(b"x" * 300_000, length=200_000)
    upstream.behave(PATH, faults.sends(answer, then="keep"))
    connection = await pool.acquire()
    try:
        await connection.request(request_head(), BODY)
    except UpstreamError:
        pass  # all of it came in one block after the head
    finally:
        pool.release(connection)
    await upstream.until_connections(0)


@pytest.mark.parametrize("cut", range(1, 110, 3))
async def test_a_head_that_comes_in_two_reads_is_read_as_one(pool, upstream, cut):
    """Wherever it is cut, before the large body that it announces."""
    answer = large(b'{"data":"' + b"x" * 100_000 + b'"}')

    async def in_two(exchange: Exchange) -> None:
        await exchange.raw(answer[:cut])
        await asyncio.sleep(0.01)
        await exchange.raw(answer[cut:])
        exchange.request.finish()
        await exchange.hang()

    upstream.behave(PATH, in_two, times=1)
    connection = await pool.acquire()
    await connection.request(request_head(), BODY)
    assert connection.status == 200
    assert sum(map(len, connection.take_blocks())) == 100_011
    pool.release(connection)


async def test_leaving_while_connecting_leaves_the_count_right(upstream):
    """A connection that nobody waits for any longer is counted in and out."""
    counted = 0

    def count(change: int) -> None:
        nonlocal counted
        counted += change

    pool = make(upstream.port, changed=count)
    for delay in (0.0, 0.0, 0.001, 0.002):
        task = asyncio.create_task(pool.acquire())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    pool.close()
    await asyncio.sleep(0.1)
    await upstream.until_connections(0)
    assert pool.open_connections == counted
    assert counted >= 0
    pool.close()


async def test_a_crash_long_after_the_request_is_no_stale_connection(pool, upstream, monkeypatch):
    """It was worked on, so it must not be sent again by itself."""
    monkeypatch.setattr(connection_module, "STALE_SECONDS", 0.02)
    await ask(pool)
    upstream.behave(PATH, faults.after(0.1, faults.closes_before_head()), times=1)
    with pytest.raises(UpstreamError) as raised:
        await ask(pool)
    assert not isinstance(raised.value, StaleConnection)
