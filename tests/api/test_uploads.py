"""Uploads in parts through OpenAI's own client."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def gateway():
    async with InProcessGateway(limits={"max_upload_bytes": 80 * MIB}) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


async def begin(client: AsyncOpenAI, size: int, **more):
    return await client.uploads.create(
        **{"bytes": size, "filename": "a.txt", "mime_type": "text/plain", "purpose": "batch"} | more
    )


async def test_the_client_uploads_a_file_in_chunks(client: AsyncOpenAI, tmp_path: Path):
    """Its own helper cuts the file, sends the parts and completes; the file is the same."""
    data = os.urandom(5 * MIB + 3)
    path = tmp_path / "big.bin"
    path.write_bytes(data)
    done = await client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=2 * MIB,
        md5=hashlib.md5(data).hexdigest(),
    )
    assert (done.status, done.bytes, done.purpose) == ("completed", len(data), "user_data")
    assert done.file is not None
    assert (done.file.filename, done.file.bytes) == ("big.bin", len(data))
    assert await client.files.retrieve(done.file.id) == done.file
    assert (await client.files.content(done.file.id)).content == data


async def test_an_upload_goes_through_its_states(client: AsyncOpenAI):
    """Pending with a time to live, then completed with the file; asked again, the same."""
    upload = await begin(client, 6, expires_after={"anchor": "created_at", "seconds": 7200})
    assert (upload.object, upload.status, upload.file) == ("upload", "pending", None)
    assert upload.id.startswith("upload_")
    assert upload.expires_at == upload.created_at + 3600
    parts = await asyncio.gather(
        *(client.uploads.parts.create(upload.id, data=one) for one in (b"abc", b"def"))
    )
    assert {part.object for part in parts} == {"upload.part"}
    assert {part.upload_id for part in parts} == {upload.id}
    ids = [part.id for part in parts]
    answers = await asyncio.gather(
        *(client.uploads.complete(upload.id, part_ids=ids) for _ in range(4))
    )
    assert {answer.status for answer in answers} == {"completed"}
    [file] = {answer.file.id for answer in answers if answer.file}
    assert (await client.files.content(file)).content == b"abcdef"
    made = await client.files.retrieve(file)
    assert made.expires_at == made.created_at + 7200


async def test_a_part_may_have_64_mib(client: AsyncOpenAI):
    """And not a byte more; nothing of a part that is too large counts."""
    size = 64 * MIB
    upload = await begin(client, size)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.uploads.parts.create(upload.id, data=b"x" * (size + 1))
    assert (caught.value.status_code, caught.value.param) == (413, "data")
    part = await client.uploads.parts.create(upload.id, data=b"x" * size)
    done = await client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert done.file.bytes == size


async def test_a_file_may_be_as_large_as_the_limit(client: AsyncOpenAI):
    """What is announced past it is 413 at once."""
    with pytest.raises(openai.APIStatusError, match=r"limits\.max_upload_bytes") as caught:
        await begin(client, 80 * MIB + 1)
    assert (caught.value.status_code, caught.value.param) == (413, "bytes")


async def test_a_cancelled_upload_is_over(client: AsyncOpenAI):
    """Parts and completion are refused with 400, which no client repeats."""
    upload = await begin(client, 3)
    part = await client.uploads.parts.create(upload.id, data=b"abc")
    assert (await client.uploads.cancel(upload.id)).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        await client.uploads.parts.create(upload.id, data=b"abc")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.uploads.complete(upload.id, part_ids=[part.id])
    assert caught.value.code == "upload_not_pending"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": "many"}, "bytes"),
        ({"purpose": "nonsense"}, "purpose"),
        ({"filename": ""}, "filename"),
        ({"mime_type": "nonsense"}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ],
)
async def test_a_wrong_field_is_named(gateway: InProcessGateway, body, param):
    """As everywhere."""
    good = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "batch"}
    async with gateway.client() as http:
        error = refused(await http.post("/v1/uploads", json={**good, **body}), 400)
    assert error["param"] == param


async def test_a_part_needs_its_data(gateway: InProcessGateway, client: AsyncOpenAI):
    """The form's field is `data`; and an upload that isn't there is 404."""
    upload = await begin(client, 3)
    async with gateway.client() as http:
        path = f"/v1/uploads/{upload.id}/parts"
        error = refused(await http.post(path, files={"file": ("a", b"abc")}), 400)
        assert error["param"] == "data"
        path = f"/v1/uploads/upload_{'0' * 32}/parts"
        error = refused(await http.post(path, files={"data": ("a", b"abc")}), 404)
        assert error["param"] == "upload_id"
