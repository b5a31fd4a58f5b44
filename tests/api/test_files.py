"""Files through OpenAI's own client, and over plain HTTP where the client shows less."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from gateway.http.multipart import MAX_OVERHEAD_BYTES
from tests.support.expect import refused
from tests.support.gateway import HOST
from tests.support.inprocess import InProcessGateway, until

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MAX_FILE_BYTES = 4 * MIB


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    async with InProcessGateway(
        data_dir=str(tmp_path_factory.mktemp("files")),
        server={"profile": request.param},
        limits={"max_file_bytes": MAX_FILE_BYTES, "max_concurrent_uploads": 4},
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
        async for file in client.files.list():
            await client.files.delete(file.id)


@pytest.fixture
async def http(gateway: InProcessGateway):
    async with gateway.client() as http:
        yield http


def is_llamastack(gateway: InProcessGateway) -> bool:
    return gateway.settings.server.profile == "llamastack"


async def test_a_file_comes_back_as_it_went_in(client: AsyncOpenAI):
    """Upload, retrieve, list, read: every byte of some megabytes, and OpenAI's fields."""
    data = os.urandom(3 * MIB + 17)
    made = await client.files.create(file=("a.bin", data), purpose="user_data")
    assert (made.object, made.bytes, made.filename) == ("file", len(data), "a.bin")
    assert (made.purpose, made.status, made.expires_at) == ("user_data", "processed", None)
    assert made.id.startswith("file-")
    assert await client.files.retrieve(made.id) == made
    assert [file async for file in client.files.list()] == [made]
    assert (await client.files.content(made.id)).content == data


@pytest.mark.parametrize("size", [0, 1, 65536, MIB])
async def test_any_size_is_a_file(client: AsyncOpenAI, size: int):
    """An empty one too."""
    made = await client.files.create(file=("a.txt", b"x" * size), purpose="assistants")
    assert made.bytes == size
    assert (await client.files.content(made.id)).content == b"x" * size


async def test_a_deleted_file_is_gone(client: AsyncOpenAI):
    """From every route, and the second delete says so."""
    made = await client.files.create(file=b"x", purpose="batch")
    gone = await client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)
    assert [file async for file in client.files.list()] == []


async def test_the_client_reads_all_pages(client: AsyncOpenAI):
    """Its own iterator, page after page, in both orders."""
    made = [(await client.files.create(file=b"x", purpose="evals")).id for _ in range(5)]
    for order, expected in (("asc", made), ("desc", made[::-1])):
        found = [file.id async for file in client.files.list(limit=2, order=order)]
        assert found == expected
    assert [file.id async for file in client.files.list(purpose="batch")] == []


@pytest.mark.one_process
async def test_the_trace_shows_the_storing(gateway, client: AsyncOpenAI):
    """A span of its own below the request's, with the file's id."""
    made = await client.files.create(file=b"x", purpose="batch")
    span = await gateway.span("store file")
    assert span.attributes["understudy.file.id"] == made.id
    request = await gateway.span("POST /v1/files")
    assert span.parent.span_id == request.context.span_id


async def test_an_empty_list_has_the_profile_s_cursors(gateway, client, http):
    """Null is OpenAI's way, an empty string LlamaStack's."""
    found = (await http.get("/v1/files")).json()
    empty = "" if is_llamastack(gateway) else None
    assert found == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": empty,
        "last_id": empty,
    }


async def test_a_file_has_no_null_where_openai_s_has_none(gateway, client, http):
    """What isn't set is left out."""
    made = await client.files.create(file=("a.txt", b"x"), purpose="vision")
    shown = (await http.get(f"/v1/openai/v1/files/{made.id}")).json()
    assert shown.pop("status_details", None) == ("" if is_llamastack(gateway) else None)
    assert set(shown) == {
        "id",
        "object",
        "bytes",
        "created_at",
        "filename",
        "purpose",
        "status",
    }


EXPIRES = {"anchor": "created_at", "seconds": 3600}


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_after": '{"anchor": "created_at", "seconds": 3600}'},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    ],
    ids=["json", "brackets"],
)
async def test_expiry_is_read_in_both_encodings(client, http, fields: dict[str, str]):
    """As one field of JSON, and as a field for each value, which is what the SDK sends."""
    answer = await http.post(
        "/v1/files", data={"purpose": "batch", **fields}, files={"file": ("a.jsonl", b"{}")}
    )
    shown = answer.json()
    assert shown["expires_at"] == shown["created_at"] + 3600, shown
    made = await client.files.create(file=b"x", purpose="assistants", expires_after=EXPIRES)
    assert made.expires_at == made.created_at + 3600


async def test_a_form_without_a_file_is_refused(http):
    """And so is what is no form."""
    error = refused(await http.post("/v1/files", files={"purpose": (None, "batch")}), 400)
    assert (error["param"], error["code"]) == ("file", "missing_required_parameter")
    refused(await http.post("/v1/files", json={"purpose": "batch"}), 415)


# ------------------------------------------------------------------------------- limits


async def test_a_file_may_be_as_large_as_the_limit(client: AsyncOpenAI):
    """One byte more is 413, and the error names the setting."""
    made = await client.files.create(file=b"x" * MAX_FILE_BYTES, purpose="assistants")
    assert made.bytes == MAX_FILE_BYTES
    for more in (1, 2 * MAX_OVERHEAD_BYTES, 30 * MIB):
        with pytest.raises(openai.APIStatusError, match=r"limits\.max_file_bytes") as caught:
            await client.files.create(file=b"x" * (MAX_FILE_BYTES + more), purpose="assistants")
        assert (caught.value.status_code, caught.value.param) == (413, "file")


async def test_the_caller_sees_an_early_refusal(client: AsyncOpenAI):
    """Not a broken connection, however much it had still to send; then it goes on as usual."""
    for _ in range(5):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.files.create(file=b"x" * (30 * MIB), purpose="nonsense")  # type: ignore[arg-type]
        assert caught.value.status_code in (400, 413)
    assert (await client.files.create(file=b"x", purpose="batch")).bytes == 1


async def connect(gateway: InProcessGateway, head: bytes) -> tuple[Any, Any]:
    reader, writer = await asyncio.open_connection(HOST, gateway.port)
    writer.write(b"POST /v1/files HTTP/1.1\r\nhost: x\r\n" + head)
    return reader, writer


async def test_who_asks_before_sending_is_told_at_once(gateway):
    """`Expect: 100-continue` with a length that is too large: refused without the body."""
    reader, writer = await connect(
        gateway,
        b"expect: 100-continue\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        b"content-length: 999999999\r\n\r\n",
    )
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


BEGUN = (
    b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n"
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nsome'
)


@pytest.mark.one_process
async def test_who_sends_nothing_more_loses_the_place(gateway, monkeypatch):
    """A caller whose machine has gone doesn't keep an upload open: 408, and it is over."""
    monkeypatch.setattr("gateway.http.intake.STALL_SECONDS", 0.1)
    reader, writer = await connect(gateway, BEGUN)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert gateway.application.stateful.intake._taken == 0


@pytest.mark.one_process
async def test_so_many_uploads_at_once_and_no_more(gateway, client):
    """Past the limit it is 429 with retry-after; a place that is free again is given away."""
    intake = gateway.application.stateful.intake
    callers = [await connect(gateway, BEGUN) for _ in range(4)]
    await until(lambda: intake._taken == 4, "four uploads")
    with pytest.raises(openai.RateLimitError) as caught:
        await client.files.create(file=b"x" * 100_000, purpose="batch")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "too_many_uploads"
    for _, writer in callers:
        writer.close()
    await until(lambda: intake._taken == 0, "free places")
    await client.files.create(file=b"x", purpose="batch")


async def test_what_is_no_id_of_a_file(gateway, client):
    """404 is OpenAI's way, 400 LlamaStack's; an id that could be one is 404 in both."""
    error = openai.BadRequestError if is_llamastack(gateway) else openai.NotFoundError
    with pytest.raises(error):
        await client.files.retrieve("nonsense")
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve("file-" + "0" * 32)


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("purpose=x", "purpose")],
)
async def test_a_wrong_query_names_the_parameter(http, query, param):
    """As everywhere."""
    assert refused(await http.get(f"/v1/files?{query}"), 400)["param"] == param
