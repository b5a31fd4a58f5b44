"""What is taken for a file, and how its content is given back: ranges, validators, headers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.errors import UpstreamUnavailable
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def gateway():
    async with InProcessGateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def client(gateway: InProcessGateway):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(gateway: InProcessGateway):
    async with gateway.client() as http:
        yield http


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "nonsense"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "batch", "expires_after": "soon"}, "expires_after"),
        ({"purpose": "batch", "expires_after": "[1]"}, "expires_after"),
        ({"purpose": "batch", "expires_after": '{"seconds": 3600}'}, "expires_after.anchor"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
        ),
        (
            {"purpose": "batch", "expires_after": '{"anchor": "created_at", "seconds": 1}'},
            "expires_after.seconds",
        ),
    ],
)
@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    gateway, client, http, fields: dict[str, str], param: str, behind
):
    """Wherever it stands, before the file or behind it."""
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    parts.insert(0 if behind else len(parts), ("file", ("a.txt", b"x" * 200_000)))
    before = await objects_of(gateway)
    error = refused(await http.post("/v1/files", files=parts), 400)
    assert error["param"] == param
    assert await objects_of(gateway) <= before  # what was deleted goes by and by


async def objects_of(gateway: InProcessGateway) -> set[str]:
    """The keys of all that is stored."""
    return {found.key async for found in gateway.application.state.objects.list("default/files/")}


@pytest.fixture
async def letters(client: AsyncOpenAI) -> str:
    return (await client.files.create(file=("a.txt", b"abcdefghij"), purpose="batch")).id


@pytest.mark.parametrize(
    ("asked", "status", "content", "place"),
    [
        ("bytes=2-4", 206, b"cde", "bytes 2-4/10"),
        ("bytes=2-", 206, b"cdefghij", "bytes 2-9/10"),
        ("bytes=-3", 206, b"hij", "bytes 7-9/10"),
        ("bytes=-99", 206, b"abcdefghij", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"ij", "bytes 8-9/10"),
        ("bytes=0-0", 206, b"a", "bytes 0-0/10"),
        ("bytes=0-1,4-5", 200, b"abcdefghij", None),
        ("bytes=4-2", 200, b"abcdefghij", None),
        ("bytes=-", 200, b"abcdefghij", None),
        ("lines=1-2", 200, b"abcdefghij", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-100", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        (f"bytes={'9' * 50}-", 416, None, "bytes */10"),
    ],
)
async def test_a_range_of_the_content(http, letters, asked, status, content, place):
    """One range is given; several, or what is no range, is the whole; one outside is 416."""
    answer = await http.get(f"/v1/files/{letters}/content", headers={"range": asked})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == place
    if content is None:
        assert refused(answer, 416)["param"] == "range"
    else:
        assert answer.content == content
        assert answer.headers["content-length"] == str(len(content))


async def test_what_the_caller_has_is_not_sent_again(http, letters):
    """The ETag is the content's digest; 304 has no body, and a stale one gets the whole."""
    path = f"/v1/files/{letters}/content"
    etag = (await http.get(path)).headers["etag"]
    assert etag == f'"{hashlib.sha256(b"abcdefghij").hexdigest()}"'
    for known in (etag, f'W/{etag}, "x"', "*"):
        answer = await http.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert (await http.get(path, headers={"if-none-match": '"x"'})).status_code == 200
    for condition, status in ((etag, 206), ('"x"', 200)):
        headers = {"range": "bytes=0-1", "if-range": condition}
        assert (await http.get(path, headers=headers)).status_code == status


async def test_the_headers_alone(http, letters):
    """HEAD says what GET would."""
    path = f"/v1/files/{letters}/content"
    head, got = await http.head(path), await http.get(path)
    assert head.status_code == 200
    assert head.content == b""
    changing = {"date", "x-request-id", "openai-processing-ms"}
    assert {(k, v) for k, v in head.headers.items() if k not in changing} == {
        (k, v) for k, v in got.headers.items() if k not in changing
    }


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("application/pdf", "application/pdf"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("image/png", "image/png"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/javascript", "application/octet-stream"),
        ("application/vnd.mozilla.xul+xml", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
    ],
)
async def test_no_content_runs_in_a_browser(client, http, sent, shown):
    """It is an attachment, never sniffed, and only harmless types are kept."""
    made = await client.files.create(file=("a", b"<script>", sent), purpose="user_data")
    headers = (await http.get(f"/v1/files/{made.id}/content")).headers
    assert headers["content-type"] == shown
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"].startswith("attachment;")


@pytest.mark.one_process
async def test_a_reader_who_leaves_ends_the_reading(gateway, letters, monkeypatch):
    """The object store's iterator is closed at once, not when it is collected."""
    closed = asyncio.Event()

    async def slow(*_: Any) -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            await asyncio.sleep(60)
        finally:
            closed.set()

    monkeypatch.setattr(gateway.application.state.objects, "read", slow)
    async with (
        httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as leaving,
        leaving.stream("GET", f"/v1/files/{letters}/content"),
    ):
        assert not closed.is_set()
    await asyncio.wait_for(closed.wait(), 20)


@pytest.mark.one_process
async def test_content_that_breaks_off_is_not_taken_for_whole(gateway, letters, http, monkeypatch):
    """A store that fails in the middle: the answer ends short of its length."""

    async def failing(*_: Any) -> AsyncIterator[bytes]:
        yield b"abc"
        raise UpstreamUnavailable("The object store is gone.")

    monkeypatch.setattr(gateway.application.state.objects, "read", failing)
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"/v1/files/{letters}/content")


async def test_content_that_can_not_be_read_is_an_error(gateway, letters, http):
    """Before the first byte there is still a status for it."""
    store = gateway.application.state.objects
    await store.delete([f"default/files/{letters}/content"])
    error = refused(await http.get(f"/v1/files/{letters}/content"), 502)
    assert error["code"] == "content_lost"
