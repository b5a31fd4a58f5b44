"""Files in vector stores, on both databases: attaching, watching, changing and detaching."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from sqlalchemy import select

from gateway.database.engine import Database
from gateway.database.paging import PageRequest
from gateway.database.tables import AttributeRow, VectorStoreFileRow
from gateway.errors import GatewayError, InvalidRequest, NotFound
from gateway.http.pages import Page
from gateway.vector_stores.schemas import (
    LastError,
    StaticChunking,
    StaticSizes,
    UpdateStoreFile,
)
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio

SMALL = StaticChunking(static=StaticSizes(max_chunk_size_tokens=200, chunk_overlap_tokens=50))
MIXED = {"int": 1, "float": 1.0, "yes": True, "no": False, "text": "x", "big": 2**53 + 1}


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


async def in_sql(stores: Stores) -> dict[str, Any]:
    """The attributes as filters see them."""
    found: dict[str, Any] = {}
    for row in await stores.rows(AttributeRow):
        [value] = [one for one in (row.text, row.number, row.boolean) if one is not None]
        found[row.key] = value
    return found


async def test_an_attached_file_is_in_progress(stores):
    """The row, its attributes and its job are there; the answer says how it will be cut."""
    store, file_id = await stores.make(), await stores.upload("täst.md")
    shown = await stores.attach(store.id, file_id, attributes=MIXED, chunking_strategy=SMALL)
    assert (shown.id, shown.vector_store_id) == (file_id, store.id)
    assert (shown.status, shown.last_error, shown.usage_bytes) == ("in_progress", None, 0)
    assert shown.chunking_strategy == {
        "type": "static",
        "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50},
    }
    [row] = await stores.rows(VectorStoreFileRow)
    assert (row.filename, row.project) == ("täst.md", "ours")
    assert await stores.jobs("ingest_file") == [row.id]


async def test_attributes_come_back_as_they_were_given(stores):
    """Whole numbers stay whole; filters see each value in its own kind."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id, attributes=MIXED)
    shown = await stores.files.get(stores.principal, store.id, file_id)
    assert shown.attributes == MIXED
    assert {key: type(value) for key, value in shown.attributes.items()} == {
        key: type(value) for key, value in MIXED.items()
    }
    assert await in_sql(stores) == {**MIXED, "big": float(2**53 + 1)}


async def test_attributes_are_replaced_as_a_whole(stores):
    """No job is put: nothing is embedded again. Null is none at all."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id, attributes=MIXED)
    update = stores.files.update
    new = {"int": 2, "new": "y"}
    shown = await update(stores.principal, store.id, file_id, UpdateStoreFile(attributes=new))
    assert shown.attributes == new
    assert await in_sql(stores) == new
    await update(stores.principal, store.id, file_id, UpdateStoreFile(attributes={"int": 2.0}))
    shown = await stores.files.get(stores.principal, store.id, file_id)
    assert isinstance(shown.attributes["int"], float)
    shown = await update(stores.principal, store.id, file_id, UpdateStoreFile(attributes=None))
    assert shown.attributes == {}
    assert await in_sql(stores) == {}
    assert len(await stores.jobs("ingest_file")) == 1


async def test_a_queue_that_fails_attaches_nothing(stores):
    """What was not put to work is not shown as in progress for ever."""
    store, file_id = await stores.make(), await stores.upload()
    stores.queue.broken = True
    with pytest.raises(RuntimeError):
        await stores.attach(store.id, file_id)
    assert await stores.rows(VectorStoreFileRow) == []


async def test_an_unknown_file_is_not_attached(stores):
    """Not another project's, not one that has expired, none that is deleted."""
    store = await stores.make()
    for file_id in (
        "file-nope",
        "file-\x00",
        await stores.upload(project="theirs"),
        await stores.upload(expires_at=1),
        await stores.upload(deleted_at=1),
    ):
        with pytest.raises(NotFound) as refused:
            await stores.attach(store.id, file_id)
        assert refused.value.param == "file_id"
    assert await stores.jobs("ingest_file") == []


@pytest.mark.parametrize("status", ["in_progress", "completed"])
async def test_attaching_again_ingests_nothing_twice(stores, status):
    """The same file cut in the same way stays; new attributes are set, and none leave the old."""
    store, file_id = await stores.make(), await stores.upload()
    first = await stores.attach(store.id, file_id, attributes={"a": 1})
    await stores.finish(file_id, status)
    again = await stores.attach(store.id, file_id)
    assert (again.status, again.attributes) == (status, {"a": 1})
    assert again.created_at == first.created_at
    again = await stores.attach(store.id, file_id, attributes={"b": 2})
    assert again.attributes == {"b": 2}
    assert await in_sql(stores) == {"b": 2}
    assert len(await stores.jobs("ingest_file")) == 1
    assert await stores.jobs("delete_attachment") == []


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("failed", {}),
        ("cancelled", {}),
        ("in_progress", {"chunking_strategy": SMALL}),
        ("completed", {"chunking_strategy": SMALL}),
    ],
)
async def test_attaching_again_begins_anew_where_that_helps(stores, status, fields):
    """A file that failed, or is to be cut in another way, is ingested again; the old row goes."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id, attributes={"a": 1})
    await stores.finish(file_id, status, error_code="server_error", error_message="broken")
    [old] = await stores.rows(VectorStoreFileRow)
    again = await stores.attach(store.id, file_id, **fields)
    assert (again.status, again.last_error, again.attributes) == ("in_progress", None, {})
    assert await stores.jobs("delete_attachment") == [old.id]
    new = {row.id: row.deleted_at for row in await stores.rows(VectorStoreFileRow)}
    assert new.pop(old.id) is not None
    assert await stores.jobs("ingest_file") == [old.id, *new]
    assert (await stores.stores.get(stores.principal, store.id)).file_counts.total == 1


async def test_attaching_at_once_from_many_places_is_attaching_once(stores):
    """Ten callers get the same file, and it is ingested once."""
    store, file_id = await stores.make(), await stores.upload()
    shown = await asyncio.gather(
        *(stores.attach(store.id, file_id, attributes={"n": n}) for n in range(10))
    )
    assert {one.id for one in shown} == {file_id}
    assert len(await stores.rows(VectorStoreFileRow)) == 1
    assert len(await stores.jobs("ingest_file")) == 1
    last = (await stores.files.get(stores.principal, store.id, file_id)).attributes
    assert await in_sql(stores) == last


async def test_a_file_may_be_in_many_stores(stores):
    """Each has its own attributes."""
    file_id = await stores.upload()
    for number in range(2):
        store = await stores.make()
        shown = await stores.attach(store.id, file_id, attributes={"n": number})
        assert shown.attributes == {"n": number}
    assert len(await stores.jobs("ingest_file")) == 2


async def test_attaching_waits_for_what_is_quick(database):
    """A file that is done in time is completed in the very answer."""
    stores = Stores(database, wait=100)
    store, file_id = await stores.make(), await stores.upload()
    attaching = asyncio.create_task(stores.attach(store.id, file_id))
    while not await stores.jobs("ingest_file"):
        await asyncio.sleep(0.01)
    await stores.finish(file_id, usage_bytes=7)
    shown = await attaching
    assert (shown.status, shown.usage_bytes) == ("completed", 7)


@pytest.mark.alone
async def test_attaching_waits_no_longer_than_it_may(database):
    """Then it says that the file is in progress."""
    stores = Stores(database, wait=0.3)
    store, file_id = await stores.make(), await stores.upload()
    begun = time.monotonic()
    assert (await stores.attach(store.id, file_id)).status == "in_progress"
    assert 0.3 <= time.monotonic() - begun < 3


async def test_a_file_detached_while_its_caller_waits_is_not_found(database):
    """The wait ends at once."""
    stores = Stores(database, wait=100)
    store, file_id = await stores.make(), await stores.upload()
    attaching = asyncio.create_task(stores.attach(store.id, file_id))
    while not await stores.jobs("ingest_file"):
        await asyncio.sleep(0.01)
    await stores.files.detach(stores.principal, store.id, file_id)
    with pytest.raises(NotFound):
        await asyncio.wait_for(attaching, 60)


async def test_a_failed_file_says_why(stores):
    """`last_error` is the worker's."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id)
    await stores.finish(file_id, "failed", error_code="invalid_file", error_message="No text.")
    shown = await stores.files.get(stores.principal, store.id, file_id)
    assert shown.last_error == LastError(code="invalid_file", message="No text.")


async def test_a_detached_file_is_gone_at_once(stores):
    """A job removes what is left; the file itself stays and can be attached again."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id)
    gone = await stores.files.detach(stores.principal, store.id, file_id)
    assert (gone.id, gone.object) == (file_id, "vector_store.file.deleted")
    [row] = await stores.rows(VectorStoreFileRow)
    assert await stores.jobs("delete_attachment") == [row.id]
    with pytest.raises(NotFound):
        await stores.files.get(stores.principal, store.id, file_id)
    with pytest.raises(NotFound):
        await stores.files.detach(stores.principal, store.id, file_id)
    assert (await stores.attach(store.id, file_id)).status == "in_progress"


@pytest.mark.parametrize(("profile", "status"), [("openai", 404), ("llamastack", 400)])
async def test_an_unknown_file_in_a_store_is_the_profiles_error(database, profile, status):
    """404 in OpenAI's way, 400 in LlamaStack's."""
    stores = Stores(database, profile=profile)
    store = await stores.make()
    for file_id in ("file-nope", "file\x00"):
        with pytest.raises(GatewayError) as refused:
            await stores.files.get(stores.principal, store.id, file_id)
        assert refused.value.status == status


async def test_settings_that_are_wrong_attach_nothing(stores):
    """The error names the parameter."""
    store, file_id = await stores.make(), await stores.upload()
    greedy = StaticChunking(static=StaticSizes(max_chunk_size_tokens=100, chunk_overlap_tokens=60))
    for fields, param in (
        ({"attributes": {"k": []}}, "attributes.k"),
        ({"chunking_strategy": greedy}, "chunking_strategy.static.chunk_overlap_tokens"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await stores.attach(store.id, file_id, **fields)
        assert refused.value.param == param
    assert await stores.rows(VectorStoreFileRow) == []


# -- lists ---------------------------------------------------------------------------------------


def expected(ids: list[str], shown: set[str], page: PageRequest) -> tuple[list[str], bool]:
    """What OpenAI's words on lists come to: `ids` are all, oldest first, `shown` what the filter
    leaves. A cursor that isn't in the list is ignored."""
    ordered = ids if page.order == "asc" else ids[::-1]
    first, last = 0, len(ordered)
    if page.after in ordered:
        first = ordered.index(page.after) + 1
    if page.before in ordered:
        last = ordered.index(page.before)
    window = [one for one in ordered[first:last] if one in shown]
    backwards = page.before is not None and page.after is None
    part = window[-page.limit :] if backwards else window[: page.limit]
    return part, len(window) > page.limit


async def test_every_page_is_what_the_words_say(stores):
    """Random pages of a random list equal those of a plain model, filters and stale cursors
    included."""
    chance = random.Random(20)
    store = await stores.make()
    ids, states = [], {}
    for _ in range(25):
        file_id = await stores.upload()
        await stores.attach(store.id, file_id)
        ids.append(file_id)
        states[file_id] = chance.choice(["completed", "failed", "in_progress"])
        await stores.finish(file_id, states[file_id])
    cursors = [None, None, "file-nope", "file\x00", *ids]
    for _ in range(150):
        page = PageRequest(
            limit=chance.choice([1, 2, 5, 24, 25, 26, 100]),
            order=chance.choice(["asc", "desc"]),
            after=chance.choice(cursors),
            before=chance.choice(cursors),
        )
        status = chance.choice([None, None, "completed", "failed", "cancelled"])
        shown = {one for one in ids if status in (None, states[one])}
        got: Page[Any] = await stores.files.list(stores.principal, store.id, page, status)
        part, more = expected(ids, shown, page)
        assert [one.id for one in got.data] == part, page
        assert got.has_more is more, page
        assert (got.first_id, got.last_id) == ((part[0], part[-1]) if part else (None, None))


async def test_walking_a_filtered_list_that_changes_shows_each_file_once(stores):
    """A client that lists what is in progress isn't sent round in circles by what gets done."""
    store = await stores.make()
    ids = []
    for _ in range(9):
        ids.append(await stores.upload())
        await stores.attach(store.id, ids[-1])
    seen: list[str] = []
    after = None
    while True:
        page = PageRequest(limit=2, order="asc", after=after)
        got = await stores.files.list(stores.principal, store.id, page, "in_progress")
        seen += [one.id for one in got.data]
        if not got.has_more:
            break
        after = got.last_id
        await stores.finish(after)
    assert seen == ids


async def test_ready_made_chunks_are_no_files(stores):
    """A document without a file is in no list and no count."""
    store = await stores.make()
    async with stores.database.begin() as session:
        session.add(
            VectorStoreFileRow(
                id="vsf_doc",
                project="ours",
                store_id=store.id,
                sequence=1,
                file_id=None,
                document_id="doc",
                status="completed",
                usage_bytes=5,
            )
        )
    page = await stores.files.list(stores.principal, store.id, PageRequest())
    assert page.data == []
    shown = await stores.stores.get(stores.principal, store.id)
    assert (shown.file_counts.total, shown.usage_bytes) == (0, 5)
    async with stores.database.read() as session:
        assert (await session.execute(select(VectorStoreFileRow.id))).scalars().all() == ["vsf_doc"]
