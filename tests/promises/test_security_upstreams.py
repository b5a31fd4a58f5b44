"""What stands behind the gateway is not trusted either: whatever a model server answers, the caller
gets what OpenAI's API has and nothing of that server's own, and the gateway's memory is bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from adapters.vllm.connection import MAX_HEAD_BYTES
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
ASKED = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
OWN = {
    "date", "content-type", "content-length", "transfer-encoding", "cache-control",
    "x-request-id", "openai-processing-ms", "openai-version", "x-content-type-options",
    "connection", "x-accel-buffering",
}  # fmt: skip


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-chat"]) as server:
        yield server


@pytest.fixture(scope="module")
async def http(upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            traced=False,
            limits={"max_answer_bytes": 1_000_000},
            # A probe would take a fault that is meant for a caller.
            routing={"breaker_failures": 10_000, "breaker_seconds": 30},
        ) as running,
        running.client() as client,
    ):
        yield client


async def test_no_header_of_a_model_server_reaches_the_caller(http, upstream):
    """Neither a cookie nor leave for other origins, nor one that another server would obey."""
    body = (await http.post(PATH, json=ASKED)).content
    theirs = {
        "set_cookie": "session=theirs",
        "access_control_allow_origin": "*",
        "location": "http://evil.example/",
        "x_accel_redirect": "/internal/secret",
        "server": "uvicorn",
        "x_powered_by": "vLLM",
        "clear_site_data": "*",
    }
    upstream.behave(PATH, faults.answers_with(200, body, **theirs), times=1)
    answer = await http.post(PATH, json=ASKED)
    assert answer.status_code == 200
    assert set(answer.headers) <= OWN


@pytest.mark.parametrize(
    "value", [b"a\r\nset-cookie: b=c", b"a\nset-cookie: b=c", b"a\rset-cookie: b=c", b"a\x00b"]
)
async def test_no_header_is_split(http, upstream, value):
    """A line break in a header makes another one at that server, and none at the gateway."""
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nretry-after: " + value
    upstream.behave(PATH, faults.sends(raw + b"\r\ncontent-length: 2\r\n\r\n{}"), times=1)
    answer = await http.post(PATH, json=ASKED)
    assert answer.status_code in (200, 502)
    assert "set-cookie" not in answer.headers


async def test_a_retry_after_that_is_no_number_is_not_passed_on(http, upstream):
    """A caller that believes it would wait for ever, or choke on it."""
    for value in (
        "Thu, 01 Jan 2099 00:00:00 GMT",
        "-5",
        "99999999999999999999",
        "9" * 5000,
        "a\tb",
        "1e9",
    ):
        upstream.behave(PATH, faults.rate_limited(value), times=1)
        answer = await http.post(PATH, json=ASKED)
        refused(answer, 429)
        assert 1 <= int(answer.headers["retry-after"]) <= 3600


NEVER_ENDING = {
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * MAX_HEAD_BYTES,
    "one header": b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 8 * MAX_HEAD_BYTES,
    "a status": b"HTTP/1.1 200 " + b"O" * 8 * MAX_HEAD_BYTES,
    "answers before the answer": b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD_BYTES,
    "an extension of a chunk": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 8 * MAX_HEAD_BYTES,
}


@pytest.mark.parametrize("name", NEVER_ENDING)
async def test_a_head_without_an_end_is_cut_off(http, upstream, name):
    """At a quarter of a megabyte, and the caller is told at once."""
    upstream.behave(PATH, faults.sends(NEVER_ENDING[name], then="hang"), times=1)
    refused(await http.post(PATH, json=ASKED, timeout=10), 502)


async def test_an_event_without_an_end_is_cut_off(http, upstream, monkeypatch):
    """A stream whose line never breaks is no way to fill the gateway's memory."""
    monkeypatch.setattr("gateway.http.event_stream.MAX_EVENT_BYTES", 100_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    upstream.behave(PATH, faults.sends(head + b"data: " + b"a" * 1_000_000, then="hang"), times=1)
    answer = await http.post(PATH, json={**ASKED, "stream": True}, timeout=10)
    refused(answer, 502)


async def test_an_answer_that_claims_to_be_compressed_is_not_unpacked(http, upstream):
    """None was asked for, so that no bomb can be sent; its bytes are no JSON."""
    import gzip

    bomb = gzip.compress(b"a" * 10_000_000)
    upstream.behave(PATH, faults.answers_with(200, bomb, content_encoding="gzip"), times=1)
    refused(await http.post(PATH, json=ASKED), 502)
    assert upstream.requests[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(http, upstream, status):
    """Wherever it leads: a model server can't send the gateway elsewhere."""
    before = len(upstream.requests)
    where = f"{upstream.url}/models"
    upstream.behave(PATH, faults.answers_with(status, b"", location=where), times=1)
    error = refused(await http.post(PATH, json=ASKED), 502)
    assert error["code"] == "upstream_redirected"
    assert len(upstream.requests) == before + 1


async def test_markup_in_an_error_is_only_text(http, upstream):
    """What a model server says stands in a JSON string, and no browser reads it as a page."""
    words = "<script>alert(1)</script>"
    upstream.behave(PATH, faults.vllm_error(400, words), times=1)
    answer = await http.post(PATH, json=ASKED)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.content)["error"]["message"] == words
