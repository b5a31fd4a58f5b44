"""Uploads in parts as a service, on each database: one file comes of them, once."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from adapters.sqlite import SqliteQueue
from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import FileRow, JobRow, UploadPartRow, UploadRow
from gateway.errors import InvalidRequest, NotFound, PayloadTooLarge, UpstreamError
from gateway.files.service import FileService
from gateway.http.multipart import FormReader
from gateway.identity.principal import Principal
from gateway.profile import profile_of
from gateway.settings import LimitSettings, RetentionSettings
from gateway.uploads.repository import UploadRepository
from gateway.uploads.schemas import CompleteUpload, CreateUpload
from gateway.uploads.service import UploadService
from tests.support.forms import Body, form, scope_of
from tests.support.memory import MemoryObjectStore

pytestmark = pytest.mark.anyio

ME = Principal()
OTHER = Principal(project="other")
LIMITS = LimitSettings(max_upload_bytes=100)


class NoActivity:
    """An activity that nobody watches."""

    def __init__(self) -> None:
        self.attributes: dict[str, object] = {}

    @contextmanager
    def step(self, name: str):
        yield self


ACTIVITY = NoActivity()


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def uploads(database: Database, objects: MemoryObjectStore) -> UploadService:
    queue = SqliteQueue(database, lease_seconds=30)
    files = FileService(database, objects, queue, profile_of("openai"), LIMITS)
    return UploadService(database, objects, queue, files, LIMITS, RetentionSettings())


def asked(size: int = 6, **more) -> CreateUpload:
    given = {"filename": "a/b.txt", "mime_type": "text/plain", "purpose": "assistants", **more}
    return CreateUpload(bytes=size, **given)


async def add(uploads: UploadService, upload_id: str, content: bytes, who=ME) -> str:
    body = Body([form(('name="data"; filename="upload"', content))])
    reader = FormReader(scope_of(), body, uploads.limit)
    return (await uploads.add_part(who, upload_id, reader, ACTIVITY)).id


async def complete(uploads: UploadService, upload_id: str, *parts: str, md5: str | None = None):
    asked_for = CompleteUpload(part_ids=[*parts], md5=md5)
    return await uploads.complete(ME, upload_id, asked_for, ACTIVITY)


async def begun(uploads: UploadService, *contents: bytes) -> tuple[str, list[str]]:
    upload = await uploads.create(ME, asked(sum(map(len, contents))))
    return upload.id, [await add(uploads, upload.id, content) for content in contents]


async def all_rows(database: Database, table) -> list:
    async with database.read() as session:
        return list((await session.execute(select(table))).scalars())


async def test_parts_become_one_file_in_the_order_of_their_ids(uploads, objects, database):
    """Not in the order in which they came; unused parts are left out."""
    upload_id, [second, first] = await begun(uploads, b"def", b"abc")
    await add(uploads, upload_id, b"unused")
    md5 = hashlib.md5(b"abcdef").hexdigest().upper()
    done = await complete(uploads, upload_id, first, second, md5=md5)
    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("b.txt", 6, "assistants")
    [file] = await all_rows(database, FileRow)
    assert objects.objects[file.object_key] == b"abcdef"
    assert file.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert file.media_type == "text/plain"
    [job] = await all_rows(database, JobRow)
    assert (job.kind, job.payload) == ("delete_upload", {"project": "default", "id": upload_id})


async def test_completing_again_gives_the_same_file(uploads, database, objects):
    """Even when the parts are gone by then: an answer that was lost can be asked for again."""
    upload_id, parts = await begun(uploads, b"abc", b"def")
    first = await complete(uploads, upload_id, *parts)
    keys = [row.object_key for row in await all_rows(database, UploadPartRow)]
    await objects.delete(keys)
    async with database.begin() as session:
        await UploadRepository(session).forget_parts("default", upload_id, parts)
    assert await complete(uploads, upload_id, *parts) == first
    assert len(await all_rows(database, FileRow)) == 1


async def test_completing_many_times_at_once_makes_one_file(uploads, database, objects):
    """All of them answer with it, and no object is left of the others."""
    upload_id, parts = await begun(uploads, b"abc", b"def")
    answers = await asyncio.gather(*(complete(uploads, upload_id, *parts) for _ in range(5)))
    assert len({answer.file.id for answer in answers}) == 1
    [file] = await all_rows(database, FileRow)
    assert [key for key in objects.objects if "/files/" in key] == [file.object_key]
    assert len(await all_rows(database, JobRow)) == 1


async def test_a_wrong_md5_makes_no_file(uploads, database, objects):
    """The error says what it is; the upload stays pending, so that it can be tried again."""
    upload_id, parts = await begun(uploads, b"abc")
    for md5, code in (("0" * 32, "checksum_mismatch"), ("nonsense", "invalid_value")):
        with pytest.raises(InvalidRequest) as caught:
            await complete(uploads, upload_id, *parts, md5=md5)
        assert (caught.value.param, caught.value.code) == ("md5", code)
    assert await all_rows(database, FileRow) == []
    assert [key for key in objects.objects if "/files/" in key] == []
    assert (await complete(uploads, upload_id, *parts)).status == "completed"


async def test_where_md5_is_refused_by_the_platform_the_caller_is_told(uploads, monkeypatch):
    """FIPS is no fault of the caller's, but there is something to do about it."""

    def refuse(*_, **__):
        raise ValueError("disabled for FIPS")

    upload_id, parts = await begun(uploads, b"abc")
    monkeypatch.setattr(hashlib, "md5", refuse)
    with pytest.raises(InvalidRequest, match="FIPS") as caught:
        await complete(uploads, upload_id, *parts, md5="0" * 32)
    assert caught.value.param == "md5"
    assert (await complete(uploads, upload_id, *parts)).status == "completed"


@pytest.mark.parametrize("choice", ["too few", "unknown", "twice", "foreign", "odd"])
async def test_parts_that_do_not_make_up_the_file_are_refused(uploads, choice):
    """The bytes must be those announced, of this upload's parts, each once."""
    upload_id, [one, two] = await begun(uploads, b"abc", b"def")
    _, [foreign] = await begun(uploads, b"def")
    chosen = {
        "too few": [one],
        "unknown": [one, "part_" + "0" * 32],
        "twice": [one, one],
        "foreign": [one, foreign],
        "odd": [one, "\x00"],
    }[choice]
    with pytest.raises(InvalidRequest) as caught:
        await complete(uploads, upload_id, *chosen)
    assert caught.value.param == "part_ids"
    assert (await complete(uploads, upload_id, one, two)).status == "completed"


async def test_a_cancelled_upload_takes_nothing_more(uploads, database):
    """Its parts are removed by a job; cancelling again changes nothing."""
    upload_id, parts = await begun(uploads, b"abc")
    assert (await uploads.cancel(ME, upload_id)).status == "cancelled"
    assert (await uploads.cancel(ME, upload_id)).status == "cancelled"
    [job] = await all_rows(database, JobRow)
    assert job.kind == "delete_upload"
    for call in (complete(uploads, upload_id, *parts), add(uploads, upload_id, b"x")):
        with pytest.raises(InvalidRequest, match="cancelled"):
            await call


async def test_a_completed_upload_can_not_be_cancelled(uploads):
    """The file is there."""
    upload_id, parts = await begun(uploads, b"abc")
    await complete(uploads, upload_id, *parts)
    with pytest.raises(InvalidRequest, match="completed"):
        await uploads.cancel(ME, upload_id)


async def test_an_expired_upload_is_over_before_the_reaper_came(uploads, database):
    """And the reaper ends it, once."""
    upload_id, parts = await begun(uploads, b"abc")
    async with database.begin() as session:
        row = await session.get(UploadRow, upload_id)
        row.expires_at = now()
    for call in (
        complete(uploads, upload_id, *parts),
        add(uploads, upload_id, b"x"),
        uploads.cancel(ME, upload_id),
    ):
        with pytest.raises(InvalidRequest, match="expired"):
            await call
    assert (await uploads.expire(), await uploads.expire()) == (1, 0)
    [row] = await all_rows(database, UploadRow)
    assert row.status == "expired"
    [job] = await all_rows(database, JobRow)
    assert (job.kind, job.payload) == ("delete_upload", {"project": "default", "id": upload_id})


async def test_a_part_that_comes_while_the_upload_ends_is_not_kept(uploads, objects, database):
    """Its content is removed again, since nobody else would."""
    upload_id, _ = await begun(uploads, b"abc")
    stored = len(objects.objects)
    put = objects.put

    async def put_and_cancel(key, blocks):
        size = await put(key, blocks)
        await uploads.cancel(ME, upload_id)
        return size

    objects.put = put_and_cancel
    with pytest.raises(InvalidRequest, match="cancelled"):
        await add(uploads, upload_id, b"late")
    assert len(objects.objects) == stored
    assert len(await all_rows(database, UploadPartRow)) == 1


async def test_there_are_limits_of_size(uploads, objects):
    """To what is announced and to what comes; the error names the setting."""
    with pytest.raises(PayloadTooLarge, match=r"limits\.max_upload_bytes") as caught:
        await uploads.create(ME, asked(101))
    assert caught.value.param == "bytes"
    upload = await uploads.create(ME, asked(100))
    await add(uploads, upload.id, b"x" * 60)
    with pytest.raises(PayloadTooLarge) as caught:
        await add(uploads, upload.id, b"x" * 41)
    assert caught.value.param == "data"
    assert len(objects.objects) == 1
    await add(uploads, upload.id, b"x" * 40)
    with pytest.raises(PayloadTooLarge):
        await add(uploads, upload.id, b"")


async def test_parts_that_are_lost_are_not_the_caller_s_fault(uploads, objects, database):
    """A pending upload whose parts are gone is an error of the store."""
    upload_id, parts = await begun(uploads, b"abc")
    objects.objects.clear()
    with pytest.raises(UpstreamError, match=upload_id):
        await complete(uploads, upload_id, *parts)
    assert await all_rows(database, FileRow) == []


async def test_projects_do_not_see_each_other(uploads):
    """Another project's upload is not found, whatever is asked of it."""
    upload_id, parts = await begun(uploads, b"abc")
    asked_for = CompleteUpload(part_ids=parts)
    for call in (
        add(uploads, upload_id, b"x", OTHER),
        uploads.complete(OTHER, upload_id, asked_for, ACTIVITY),
        uploads.cancel(OTHER, upload_id),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize("name", ["upload_1", "upload_" + "0" * 32, "x\x00"])
async def test_an_unknown_upload_is_not_found(uploads, name):
    """Nor is what can't be an id."""
    with pytest.raises(NotFound) as caught:
        await uploads.cancel(ME, name)
    assert caught.value.param == "upload_id"


@pytest.mark.parametrize("mime_type", ["", "text", "text/plain\r\nx: y", "x" * 200 + "/y"])
async def test_a_media_type_is_one(uploads, mime_type):
    """It comes back in a header."""
    with pytest.raises(InvalidRequest) as caught:
        await uploads.create(ME, asked(mime_type=mime_type))
    assert caught.value.param == "mime_type"


async def test_parts_without_a_row_can_be_told(uploads, database):
    """The reaper's question."""
    _, parts = await begun(uploads, b"abc")
    async with database.read() as session:
        known = await UploadRepository(session).known_parts([*parts, "part_0"])
    assert known == {*parts}
