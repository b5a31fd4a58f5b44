"""Batches of files, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.database.engine import Database
from gateway.database.paging import PageRequest
from gateway.database.tables import FileBatchRow, VectorStoreFileRow
from gateway.errors import GatewayError, InvalidRequest, NotFound
from gateway.vector_stores.schemas import (
    BatchFile,
    CreateFileBatch,
    FileBatchObject,
    FileCounts,
    StaticChunking,
    StaticSizes,
)
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio

SMALL = StaticChunking(static=StaticSizes(max_chunk_size_tokens=200, chunk_overlap_tokens=50))


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


async def batch_of(stores: Stores, store_id: str, **fields: Any) -> FileBatchObject:
    wanted = CreateFileBatch(**fields)
    return await stores.batches.create(stores.principal, stores.activity, store_id, wanted)


async def uploads(stores: Stores, number: int) -> list[str]:
    return await stores.upload_many([f"{n}.txt" for n in range(number)])


async def test_a_batch_shares_its_settings(stores):
    """Every file of `file_ids` gets the batch's attributes and strategy, each once."""
    store, ids = await stores.make(), await uploads(stores, 3)
    batch = await batch_of(
        stores, store.id, file_ids=[*ids, ids[0]], attributes={"n": 1}, chunking_strategy=SMALL
    )
    assert batch.id.startswith("vsfb_")
    assert (batch.vector_store_id, batch.status) == (store.id, "in_progress")
    assert batch.file_counts == FileCounts(in_progress=3, total=3)
    page = await stores.batches.list_files(
        stores.principal, store.id, batch.id, PageRequest(order="asc")
    )
    assert [one.id for one in page.data] == ids
    assert all(one.attributes == {"n": 1} for one in page.data)
    assert {one.chunking_strategy["static"]["max_chunk_size_tokens"] for one in page.data} == {200}
    assert len(await stores.jobs("ingest_file")) == 3


async def test_each_file_of_a_batch_may_have_its_own_settings(stores):
    """What stands beside `files` doesn't count for them, as OpenAI says."""
    store, ids = await stores.make(), await uploads(stores, 2)
    files = [
        BatchFile(file_id=ids[0], attributes={"a": 1}, chunking_strategy=SMALL),
        BatchFile(file_id=ids[1]),
    ]
    await batch_of(stores, store.id, files=files, attributes={"shared": True})
    first = await stores.files.get(stores.principal, store.id, ids[0])
    second = await stores.files.get(stores.principal, store.id, ids[1])
    assert (first.attributes, second.attributes) == ({"a": 1}, {})
    assert first.chunking_strategy["static"]["max_chunk_size_tokens"] == 200
    assert second.chunking_strategy["static"]["max_chunk_size_tokens"] == 800


async def test_a_batch_is_attached_whole_or_not_at_all(stores):
    """The error for an unknown file names its place, and no other file is attached."""
    store, ids = await stores.make(), await uploads(stores, 2)
    with pytest.raises(NotFound) as refused:
        await batch_of(stores, store.id, file_ids=[ids[0], "file-nope", ids[1]])
    assert refused.value.param == "file_ids[1]"
    files = [BatchFile(file_id=ids[0]), BatchFile(file_id="file-nope")]
    with pytest.raises(NotFound) as refused:
        await batch_of(stores, store.id, files=files)
    assert refused.value.param == "files[1].file_id"
    assert await stores.rows(VectorStoreFileRow) == []
    assert await stores.rows(FileBatchRow) == []
    assert await stores.jobs("ingest_file") == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "file_ids"),
        ({"file_ids": []}, "file_ids"),
        ({"files": []}, "file_ids"),
        ({"file_ids": ["a"], "files": [BatchFile(file_id="a")]}, "files"),
        ({"files": [BatchFile(file_id="a", attributes={"k": None})]}, "files[0].attributes.k"),
        ({"file_ids": ["a"], "attributes": {"k": None}}, "attributes.k"),
        (
            {"files": [BatchFile(file_id="a"), BatchFile(file_id="a", attributes={"k": 1})]},
            "files[1].file_id",
        ),
    ],
)
async def test_a_batch_that_makes_no_sense_is_refused(stores, fields, param):
    """The error names the parameter."""
    store = await stores.make()
    with pytest.raises(InvalidRequest) as refused:
        await batch_of(stores, store.id, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (["completed", "in_progress"], "in_progress"),
        (["failed", "in_progress"], "in_progress"),
        (["completed", "failed"], "completed"),
        (["completed", "cancelled"], "completed"),
        (["failed", "failed"], "failed"),
    ],
)
async def test_a_batch_is_what_its_files_are(stores, ends, status):
    """It has failed only if all of it has; the counts say how many did."""
    store, ids = await stores.make(), await uploads(stores, 2)
    batch = await batch_of(stores, store.id, file_ids=ids)
    for file_id, end in zip(ids, ends, strict=True):
        await stores.finish(file_id, end)
    shown = await stores.batches.get(stores.principal, store.id, batch.id)
    assert shown.status == status
    assert shown.file_counts.total == 2
    assert all(getattr(shown.file_counts, end) == ends.count(end) for end in ends)


async def test_two_batches_may_name_the_same_file(stores):
    """Both count it, and it is ingested once."""
    store, ids = await stores.make(), await uploads(stores, 3)
    first = await batch_of(stores, store.id, file_ids=ids[:2])
    second = await batch_of(stores, store.id, file_ids=ids[1:])
    await stores.finish(ids[1])
    for batch in (first, second):
        shown = await stores.batches.get(stores.principal, store.id, batch.id)
        assert shown.file_counts == FileCounts(in_progress=1, completed=1, total=2)
    assert len(await stores.jobs("ingest_file")) == 3


async def test_cancelling_stops_what_is_in_work(stores):
    """What is done stays done, and what another batch waits for goes on."""
    store, ids = await stores.make(), await uploads(stores, 3)
    batch = await batch_of(stores, store.id, file_ids=ids)
    other = await batch_of(stores, store.id, file_ids=ids[2:])
    await stores.finish(ids[0])
    shown = await stores.batches.cancel(stores.principal, store.id, batch.id)
    assert shown.status == "cancelled"
    assert shown.file_counts == FileCounts(completed=1, cancelled=1, in_progress=1, total=3)
    assert shown == await stores.batches.get(stores.principal, store.id, batch.id)
    still = await stores.batches.get(stores.principal, store.id, other.id)
    assert (still.status, still.file_counts.in_progress) == ("in_progress", 1)
    again = await stores.batches.cancel(stores.principal, store.id, other.id)
    assert again.file_counts == FileCounts(cancelled=1, total=1)


async def test_cancelling_what_is_over_answers_with_the_batch(stores):
    """OpenAI's way: it stays completed."""
    store, ids = await stores.make(), await uploads(stores, 1)
    batch = await batch_of(stores, store.id, file_ids=ids)
    await stores.finish(ids[0])
    shown = await stores.batches.cancel(stores.principal, store.id, batch.id)
    assert shown.status == "completed"
    assert shown == await stores.batches.get(stores.principal, store.id, batch.id)


async def test_llamastack_refuses_to_cancel_what_is_over(database):
    """400, also where it was cancelled before; and its ids are LlamaStack's."""
    stores = Stores(database, profile="llamastack")
    store, ids = await stores.make(), await uploads(stores, 1)
    batch = await batch_of(stores, store.id, file_ids=ids)
    assert batch.id.startswith("batch_")
    assert len(batch.id) == len("batch_") + 36
    await stores.batches.cancel(stores.principal, store.id, batch.id)
    with pytest.raises(InvalidRequest, match="cancelled"):
        await stores.batches.cancel(stores.principal, store.id, batch.id)


@pytest.mark.parametrize(("profile", "status"), [("openai", 404), ("llamastack", 400)])
async def test_an_unknown_batch_is_the_profiles_error(database, profile, status):
    """Also one of another store."""
    stores = Stores(database, profile=profile)
    store, other = await stores.make(), await stores.make()
    batch = await batch_of(stores, store.id, file_ids=await uploads(stores, 1))
    for store_id, batch_id in ((store.id, "nope"), (store.id, "\x00"), (other.id, batch.id)):
        for call in (
            stores.batches.get(stores.principal, store_id, batch_id),
            stores.batches.cancel(stores.principal, store_id, batch_id),
            stores.batches.list_files(stores.principal, store_id, batch_id, PageRequest()),
        ):
            with pytest.raises(GatewayError) as refused:
                await call
            assert refused.value.status == status


async def test_the_files_of_a_batch_are_listed_in_pages(stores):
    """The filter and the cursor work as they do for the store, on the batch's files alone."""
    store, ids = await stores.make(), await uploads(stores, 5)
    await stores.attach(store.id, await stores.upload())
    batch = await batch_of(stores, store.id, file_ids=ids)
    await stores.finish(ids[3])

    async def listed(status: Any = None, **page: Any) -> tuple[list[str], bool]:
        got = await stores.batches.list_files(
            stores.principal, store.id, batch.id, PageRequest(**page), status
        )
        return [one.id for one in got.data], got.has_more

    assert await listed() == (ids[::-1], False)
    assert await listed(limit=2, order="asc", after=ids[0]) == (ids[1:3], True)
    assert await listed("completed") == ([ids[3]], False)
    assert await listed("in_progress", order="asc", after=ids[3]) == ([ids[4]], False)


async def test_two_thousand_files_are_one_batch(stores):
    """The most that a request may name; named again, all of it is there already."""
    store = await stores.make()
    ids = await stores.upload_many([f"{n}.txt" for n in range(2000)])
    batch = await batch_of(stores, store.id, file_ids=ids, attributes={"n": 1})
    assert batch.file_counts == FileCounts(in_progress=2000, total=2000)
    again = await batch_of(stores, store.id, file_ids=ids)
    assert again.file_counts == batch.file_counts
    shown = await stores.batches.cancel(stores.principal, store.id, batch.id)
    assert shown.file_counts.in_progress == 2000
    shown = await stores.batches.cancel(stores.principal, store.id, again.id)
    assert shown.file_counts == FileCounts(cancelled=2000, total=2000)
    assert len(await stores.jobs("ingest_file")) == 2000
