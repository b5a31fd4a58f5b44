"""Nothing that is sent over a connection makes the gateway see another request than whoever stands
in front of it, or hold more than a little for a caller that sends no whole request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from gateway.http.protocol import MAX_HEAD_BYTES, JoiningProtocol
from tests.support.expect import error_in
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm
from tests.support.wire import say

pytestmark = pytest.mark.anyio

BODY = b'{"model":"fake-chat","messages":[{"role":"user","content":"hi"}]}'
LENGTH = b"%d" % len(BODY)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
HIDDEN = b"0\r\n\r\nGET /v1/files HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)

AMBIGUOUS = {
    "length and chunks": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + HIDDEN,
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"content-length: %b\r\ncontent-length: 0\r\n\r\n" % LENGTH + BODY,
    "the same length twice": HEAD + b"content-length: %b\r\n" % LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": HEAD + b"content-length: %b, 0\r\n\r\n" % LENGTH + BODY,
    "a signed length": HEAD + b"content-length: +%b\r\n\r\n" % LENGTH + BODY,
    "a negative length": HEAD + b"content-length: -1\r\n\r\n" + BODY,
    "a length in hexadecimal": HEAD + b"content-length: 0x10\r\n\r\n" + BODY,
    "a length too large for any": HEAD + b"content-length: 99999999999999999999\r\n\r\n" + BODY,
    "an encoding that is none": HEAD + b"transfer-encoding: xchunked\r\n\r\n" + HIDDEN,
    "chunks that are not last": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n" + HIDDEN,
    "a space before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n" + HIDDEN,
    "an odd space behind it": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n" + HIDDEN,
    "a lone line feed in an extension": HEAD + b"transfer-encoding: chunked\r\n\r\n0;a=\nb\r\n\r\n",
    "a size that is no number": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a negative size": HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a size too large for any": HEAD + b"transfer-encoding: chunked\r\n\r\n%b\r\n" % (b"f" * 17),
    "lone line feeds": b"GET /livez HTTP/1.1\nhost: x\n\n",
    "a folded header": GET + b"x-a: b\r\n c\r\n\r\n",
    "a nul in a header": GET + b"x-a: b\x00c\r\n\r\n",
    "a lone carriage return": GET + b"x-a: b\rc\r\n\r\n",
    "a method there isn't": b"FOO /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    "a version there isn't": b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
    "a version without headers": b"GET /livez\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-chat"]) as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(upstream) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url], models=["fake-chat"], traced=False
    ) as started:
        yield started


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_a_request_that_two_servers_may_read_differently_is_refused(gateway, name):
    """With a 400 in the one shape, and the connection is closed: what follows is never read."""
    said = await say(gateway.port, AMBIGUOUS[name])
    assert said.statuses == [400]
    assert said.closed
    assert error_in(said.text.partition(b"\r\n\r\n")[2])["code"] == "invalid_http"


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity\r\ntransfer-encoding: chunked"])
async def test_no_other_transfer_encoding_is_taken(gateway, coding):
    """What isn't plain chunks is refused rather than taken for them."""
    said = await say(gateway.port, HEAD + b"transfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n")
    assert said.statuses == [415]


async def test_what_comes_behind_a_body_is_no_header(gateway, monkeypatch):
    """A proxy that strips a header of identity looks at the head alone."""
    seen: list[tuple[bytes, bytes]] = []
    whole = JoiningProtocol.on_message_complete

    def look(protocol: JoiningProtocol) -> None:
        whole(protocol)
        seen.extend(protocol.cycle.scope["headers"])

    monkeypatch.setattr(JoiningProtocol, "on_message_complete", look)
    trailers = b"authorization: Bearer stolen\r\nx-forwarded-user: root\r\n\r\n"
    said = await say(
        gateway.port, HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + trailers
    )
    assert said.statuses == [200]
    assert (b"transfer-encoding", b"chunked") in seen
    assert {name for name, _ in seen}.isdisjoint({b"authorization", b"x-forwarded-user"})


@pytest.mark.parametrize("framing", ["length", "chunks", "in pieces"])
async def test_an_offer_of_http_2_hides_no_body(gateway, upstream, framing):
    """Java's client makes it with each request; the body is read, and so is the next request."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    if framing == "chunks":
        sent = HEAD + offer + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + b"\r\n"
    else:
        sent = HEAD + offer + b"content-length: %b\r\n\r\n" % LENGTH + BODY
    sent += GET + b"\r\n"
    pieces = [sent[at : at + 7] for at in range(0, len(sent), 7)]
    said = await say(gateway.port, pieces if framing == "in pieces" else sent)
    assert said.statuses == [200, 200]
    assert b'"chat.completion"' in said.text
    assert said.text.endswith(b'{"status":"OK"}')


ENDLESS = {
    "one header": GET + b"x-a: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "many headers": GET + b"".join(b"x-%d: a\r\n" % one for one in range(100_000)) + b"\r\n",
    "a path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "just too much": GET + b"x-a: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
    "a header behind a body": HEAD
    + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx-a: "
    + b"a" * 1_000_000,
    "an extension of a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_is_bounded(gateway, name):
    """431 past 64 KiB, of what is no content too, and the connection is closed."""
    sent = ENDLESS[name]
    said = await say(gateway.port, (sent[at : at + 16_384] for at in range(0, len(sent), 16_384)))
    assert said.closed
    assert said.statuses == [431]


async def test_a_large_body_in_one_block_with_its_head_is_no_large_head(gateway):
    """Only the head is measured."""
    body = json.dumps(
        {"model": "fake-chat", "messages": [{"role": "user", "content": "a" * 200_000}]}
    )
    sent = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body.encode()
    assert (await say(gateway.port, sent)).statuses == [200]


SLOW = {
    "nothing at all": b"",
    "half a line": b"GET /liv",
    "half a head": GET + b"x-a: b\r\n",
}


@pytest.fixture
def hurry(monkeypatch):
    """A protocol of little patience."""
    monkeypatch.setattr(JoiningProtocol, "head_seconds", 0.3)
    monkeypatch.setattr(JoiningProtocol, "silent_seconds", 0.5)
    monkeypatch.setattr("gateway.http.protocol.WATCH_SECONDS", 0.1)


@pytest.mark.alone
@pytest.mark.parametrize("name", SLOW)
async def test_a_head_that_does_not_come_is_given_up(gateway, hurry, name):
    """However the caller holds the connection: it is closed, with a 408."""
    said = await say(gateway.port, SLOW[name], patience=5)
    assert said.closed
    assert said.statuses == [408]


@pytest.mark.alone
async def test_a_head_that_drips_is_given_up(gateway, hurry):
    """A byte now and then does not prolong it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    started = time.monotonic()
    closed = asyncio.create_task(reader.read())
    while not closed.done() and time.monotonic() - started < 5:
        writer.write(b"G" if not writer.is_closing() else b"")
        await asyncio.sleep(0.05)
        if started + 0.1 > time.monotonic():
            writer.write(b"ET /livez HTTP/1.1\r\nx-a: ")
    assert time.monotonic() - started < 3
    writer.close()
    await asyncio.gather(closed, return_exceptions=True)


@pytest.mark.alone
async def test_a_body_that_stops_coming_is_given_up(gateway, hurry, upstream):
    """The request ends as if the caller had left, with a 408 for who still listens."""
    before = len(upstream.requests)
    said = await say(gateway.port, HEAD + b"content-length: 1000\r\n\r\n{", patience=5)
    assert said.closed
    assert said.statuses == [408]
    assert error_in(said.text.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"
    assert len(upstream.requests) == before


async def test_who_waits_for_an_answer_is_no_slow_caller(gateway, hurry, upstream):
    """The time limits are for what the caller has to say, not for what it waits for."""
    from tests.support.upstream import faults

    upstream.behave("/v1/chat/completions", faults.slow(before_head=1.5), times=1)
    said = await say(
        gateway.port, HEAD + b"content-length: %b\r\n\r\n" % LENGTH + BODY, patience=30
    )
    assert said.statuses == [200]


async def test_a_request_is_not_echoed(gateway):
    """TRACE would show a script the headers that a browser keeps from it."""
    said = await say(
        gateway.port, b"TRACE /livez HTTP/1.1\r\nhost: x\r\nauthorization: s3cret\r\n\r\n"
    )
    assert said.statuses == [405]
    assert b"s3cret" not in said.text


async def test_pages_of_other_origins_are_told_nothing(gateway):
    """There is no CORS: neither a preflight nor a request gets leave."""
    ask = b"origin: http://evil.example\r\naccess-control-request-method: POST\r\n\r\n"
    asked = await say(gateway.port, b"OPTIONS /v1/files HTTP/1.1\r\nhost: x\r\n" + ask)
    got = await say(gateway.port, GET + b"origin: http://evil.example\r\n\r\n")
    assert (asked.statuses, got.statuses) == ([204], [200])
    assert b"access-control" not in (asked.text + got.text).lower()


async def test_no_answer_is_taken_for_a_page(gateway):
    """Not even one that the gateway gives before any request is read."""
    for sent in (GET + b"\r\n", HEAD + b"content-length: 0\r\n\r\n", b"nonsense\r\n\r\n"):
        said = await say(gateway.port, sent)
        assert said.statuses
        assert b"x-content-type-options: nosniff" in said.text
        assert b"server:" not in said.text.lower()
