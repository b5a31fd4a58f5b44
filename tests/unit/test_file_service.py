"""Files as a service, on each database: what is stored, what is seen, and what a delete takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import select

from adapters.sqlite import SqliteQueue
from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, sequence
from gateway.database.tables import FileRow, JobRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import InvalidRequest, NotFound, UpstreamError, UpstreamUnavailable
from gateway.files.repository import FileRepository
from gateway.files.schemas import NewFile
from gateway.files.service import FileService
from gateway.identity.principal import Principal
from gateway.profile import profile_of
from gateway.settings import LimitSettings
from tests.support.memory import MemoryObjectStore

pytestmark = pytest.mark.anyio

ME = Principal()
OTHER = Principal(project="other")
DESCRIBED = NewFile(filename="a.txt", purpose="assistants", media_type="text/plain")
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture(params=["openai"])
def files(request, database: Database, objects: MemoryObjectStore) -> FileService:
    queue = SqliteQueue(database, lease_seconds=30)
    return FileService(database, objects, queue, profile_of(request.param), LimitSettings())


async def blocks(*content: bytes) -> AsyncGenerator[bytes, None]:
    for block in content:
        yield block


async def stored(files: FileService, *content: bytes, project: str = "default", **new) -> FileRow:
    described = NewFile(**{"filename": "a.txt", "purpose": "assistants", **new})
    return await files.store(project, blocks(*content), lambda: described)


async def listed(files: FileService, principal: Principal = ME, **query):
    given = dict.fromkeys(("purpose", "limit", "order", "after", "before"))
    return await files.list(principal, **{**given, **query})


async def all_rows(database: Database, table) -> list:
    async with database.read() as session:
        return list((await session.execute(select(table))).scalars())


async def expire(database: Database, *rows: FileRow) -> None:
    async with database.begin() as session:
        for row in rows:
            found = await session.get(FileRow, row.id)
            assert found is not None
            found.expires_at = now()


async def attached(database: Database, file: FileRow, project: str = "default") -> str:
    """The file in a store of its own; the attachment's id."""
    store = VectorStoreRow(
        id=new_id("vs_"),
        project=project,
        sequence=sequence(),
        name=None,
        embedding_model="m",
        dimension=2,
        keyword=False,
        provider_id="milvus",
        last_active_at=now(),
    )
    attachment = VectorStoreFileRow(
        id=new_id("vsf_"),
        project=project,
        store_id=store.id,
        sequence=sequence(),
        file_id=file.id,
    )
    async with database.begin() as session:
        session.add(store)
        await session.flush()
        session.add(attachment)
    return attachment.id


async def test_a_file_is_stored_whole(files, objects, database):
    """Its bytes are in the object store; the row knows their size, digest and type."""
    row = await stored(files, b"hel", b"lo", media_type="text/plain")
    assert objects.objects == {row.object_key: b"hello"}
    [found] = await all_rows(database, FileRow)
    assert (found.bytes, found.sha256, found.media_type) == (5, HELLO, "text/plain")
    assert (await files.retrieve(ME, row.id)).bytes == 5


async def test_the_key_has_nothing_of_the_name(files, objects):
    """What callers name their files never reaches the object store."""
    row = await stored(files, b"x", filename="../../etc/passwd")
    assert [*objects.objects] == [f"default/files/{row.id}/content"]


async def broken(error: Exception) -> AsyncGenerator[bytes, None]:
    yield b"some"
    raise error


async def test_content_that_fails_leaves_nothing(files, objects, database):
    """What it raises is raised, and there is neither object nor row."""
    with pytest.raises(InvalidRequest, match="no good"):
        await files.store("default", broken(InvalidRequest("no good")), lambda: DESCRIBED)
    assert objects.objects == {}
    assert await all_rows(database, FileRow) == []


async def test_a_store_that_fails_leaves_no_row(files, objects, database):
    """The file isn't there where its content isn't."""
    objects.failure = UpstreamUnavailable("gone")
    with pytest.raises(UpstreamUnavailable):
        await stored(files, b"x")
    assert await all_rows(database, FileRow) == []


async def test_projects_do_not_see_each_other(files, database):
    """Another project's file is not found, not listed, not read and not deleted."""
    mine = await stored(files, b"x")
    assert (await listed(files, OTHER)).data == []
    for call in (files.retrieve, files.content, files.delete):
        with pytest.raises(NotFound):
            await call(OTHER, mine.id)
    assert (await files.retrieve(ME, mine.id)).id == mine.id


async def test_a_list_is_read_page_by_page(files):
    """In either direction, forwards and backwards, every file once; newest first by default."""
    ids = [(await stored(files, b"x")).id for _ in range(5)]
    for order, expected in (("asc", ids), ("desc", ids[::-1]), (None, ids[::-1])):
        seen: list[str] = []
        after = None
        while True:
            page = await listed(files, limit=2, order=order, after=after)
            seen += [file.id for file in page.data]
            assert (page.first_id, page.last_id) == (page.data[0].id, page.data[-1].id)
            if not page.has_more:
                break
            after = page.last_id
        assert seen == expected
        before = await listed(files, limit=2, order=order, before=expected[3])
        assert [file.id for file in before.data] == expected[1:3]
        assert before.has_more


async def test_a_list_goes_on_behind_a_file_that_was_just_deleted(files):
    """Who deletes what it lists doesn't begin again."""
    ids = [(await stored(files, b"x")).id for _ in range(4)]
    await files.delete(ME, ids[1])
    page = await listed(files, order="asc", after=ids[1])
    assert [file.id for file in page.data] == ids[2:]


async def test_a_list_can_be_of_one_purpose(files):
    """Others are left out, and a purpose that there isn't is refused."""
    await stored(files, b"x")
    batch = await stored(files, b"x", purpose="batch")
    ours = await stored(files, b"x", purpose="batch_output")
    assert [file.id for file in (await listed(files, purpose="batch")).data] == [batch.id]
    assert [file.id for file in (await listed(files, purpose="batch_output")).data] == [ours.id]
    with pytest.raises(InvalidRequest) as caught:
        await listed(files, purpose="nonsense")
    assert caught.value.param == "purpose"


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 10_001}, "limit"), ({"order": "up"}, "order")],
)
async def test_a_wrong_query_names_the_parameter(files, query, param):
    """As OpenAI does."""
    with pytest.raises(InvalidRequest) as caught:
        await listed(files, **query)
    assert caught.value.param == param


async def test_an_expired_file_is_gone_before_the_reaper_came(files, database):
    """Not found, not listed, not read; and the reaper deletes it, once."""
    row = await stored(files, b"x", expires_after=3600)
    kept = await stored(files, b"x")
    shown = await files.retrieve(ME, row.id)
    assert shown.expires_at == shown.created_at + 3600
    await expire(database, row)
    for call in (files.retrieve, files.content, files.delete):
        with pytest.raises(NotFound):
            await call(ME, row.id)
    assert [file.id for file in (await listed(files)).data] == [kept.id]
    assert await files.delete_expired() == 1
    assert await files.delete_expired() == 0
    [job] = await all_rows(database, JobRow)
    assert (job.kind, job.payload) == ("delete_file", {"project": "default", "id": row.id})


@pytest.mark.parametrize(
    ("files", "seconds"),
    [("openai", 30 * 24 * 3600), ("llamastack", None)],
    indirect=["files"],
)
async def test_batch_files_expire_by_default_as_openai_s_do(files, seconds):
    """Thirty days there; LlamaStack keeps them. What the caller says counts more."""
    row = await stored(files, b"x", purpose="batch")
    made = (await files.retrieve(ME, row.id)).created_at
    assert row.expires_at == (None if seconds is None else made + seconds)
    given = await stored(files, b"x", purpose="batch", expires_after=3600)
    assert given.expires_at == (await files.retrieve(ME, given.id)).created_at + 3600


async def test_a_delete_takes_the_file_out_of_every_store(files, objects, database):
    """Tombstones and the job come in one transaction; other files' attachments stay."""
    row, other = await stored(files, b"x"), await stored(files, b"x")
    gone = {await attached(database, row), await attached(database, row)}
    stays = await attached(database, other)
    assert (await files.delete(ME, row.id)).deleted
    attachments = {one.id: one.deleted_at for one in await all_rows(database, VectorStoreFileRow)}
    assert {one for one, deleted in attachments.items() if deleted is not None} == gone
    assert attachments[stays] is None
    [job] = await all_rows(database, JobRow)
    assert (job.kind, job.payload) == ("delete_file", {"project": "default", "id": row.id})
    for call in (files.retrieve, files.content, files.delete):
        with pytest.raises(NotFound):
            await call(ME, row.id)


async def test_a_delete_whose_job_can_not_be_put_deletes_nothing(files, database, monkeypatch):
    """All of it or none of it."""

    async def fail(*_, **__) -> str:
        raise UpstreamUnavailable("no queue")

    row = await stored(files, b"x")
    monkeypatch.setattr(files._queue, "put", fail)
    with pytest.raises(UpstreamUnavailable):
        await files.delete(ME, row.id)
    assert (await files.retrieve(ME, row.id)).id == row.id


async def test_content_that_is_lost_is_not_the_caller_s_fault(files, objects):
    """A row without its object is an error of the store, and says which file it is."""
    row = await stored(files, b"hello")
    content = await files.content(ME, row.id)
    assert b"".join([block async for block in content.read(1, 3)]) == b"el"
    objects.objects.clear()
    with pytest.raises(UpstreamError, match=row.id):
        await anext(content.read(0, 5))
    await files.delete(ME, row.id)
    with pytest.raises(NotFound):
        await anext(content.read(0, 5))


async def test_objects_without_a_row_can_be_told(files, database):
    """The reaper's question; a tombstone still counts as a row."""
    row, gone = await stored(files, b"x"), await stored(files, b"x")
    await files.delete(ME, gone.id)
    async with database.read() as session:
        known = await FileRepository(session).known([row.id, gone.id, "file-0"])
    assert known == {row.id, gone.id}


async def test_a_held_file_is_not_deleted_meanwhile(files, database):
    """Who attaches it in the same transaction attaches a file that is there until that ends."""
    row = await stored(files, b"x")
    async with database.begin() as session:
        assert await FileRepository(session).find("default", row.id, hold=True) is not None
        held = await FileRepository(session).find_all("default", [row.id, "file-0"], hold=True)
        assert [*held] == [row.id]
        deleting = asyncio.create_task(files.delete(ME, row.id))
        await asyncio.sleep(0.2)
        assert not deleting.done()
    await deleting
    async with database.begin() as session:
        assert await FileRepository(session).find("default", row.id, hold=True) is None
        assert await FileRepository(session).find_all("default", [row.id]) == {}


@pytest.mark.parametrize(
    ("files", "error"), [("openai", NotFound), ("llamastack", InvalidRequest)], indirect=["files"]
)
@pytest.mark.parametrize("name", ["file_1", "file-", "vs_1", "file-xyz", "file-1\x00"])
async def test_what_is_no_id_of_a_file_is_refused(files, error, name):
    """404 is OpenAI's way, 400 LlamaStack's; no database is asked."""
    with pytest.raises(error) as caught:
        await files.retrieve(ME, name)
    assert caught.value.param == "id"
