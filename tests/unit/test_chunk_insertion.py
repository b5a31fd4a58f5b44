"""Chunks that callers bring ready-made, on both databases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from gateway.database.engine import Database
from gateway.database.tables import AttributeRow, ChunkRow, VectorStoreFileRow
from gateway.errors import InvalidRequest, NotFound, UpstreamUnavailable
from gateway.vector_stores.insert_schemas import InsertChunks
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


def chunk(text: str, **fields: Any) -> dict[str, Any]:
    return {"content": text, "embedding": [1.0, 0.0, 0.0], **fields}


async def insert(stores: Stores, store_id: str, *chunks: dict[str, Any], **fields: Any) -> None:
    body = {"vector_store_id": store_id, "chunks": list(chunks), **fields}
    wanted = msgspec.convert(body, InsertChunks)
    await stores.insertion.insert(stores.principal, stores.activity, wanted)


async def texts(stores: Stores) -> dict[str, str]:
    """The chunks in the database by their callers' ids."""
    return {row.external_id: row.text for row in await stores.rows(ChunkRow)}


async def test_inserted_chunks_are_in_database_and_index(stores):
    """One attachment for each document, complete at once; the index has its chunks."""
    store = await stores.make()
    await insert(
        stores,
        store.id,
        chunk("one", chunk_id="c1", metadata={"document_id": "d1", "n": 1}),
        chunk("two", chunk_id="c2", metadata={"document_id": "d1", "n": 1}),
        chunk("three", chunk_id="c3", chunk_metadata={"document_id": "d2", "source": "d2.pdf"}),
    )
    assert await texts(stores) == {"c1": "one", "c2": "two", "c3": "three"}
    rows = {row.document_id: row for row in await stores.rows(VectorStoreFileRow)}
    assert {name: row.status for name, row in rows.items()} == {
        "d1": "completed",
        "d2": "completed",
    }
    assert (rows["d1"].filename, rows["d2"].filename) == ("d1", "d2.pdf")
    assert (rows["d1"].file_id, rows["d1"].usage_bytes) == (None, 6)
    chunks = await stores.rows(ChunkRow)
    assert {row.id for row in chunks} == set(stores.index.chunks[store.id])
    assert all(len(row.id) <= 64 for row in chunks)
    assert sorted(row.position for row in chunks) == [0, 0, 1]
    assert len({row.digest for row in chunks}) == 3


async def test_the_same_insert_again_changes_nothing(stores):
    """With the caller's ids, and with those made from document and text."""
    store = await stores.make()
    for _ in range(2):
        await insert(stores, store.id, chunk("one", chunk_id="c1"), chunk("two"), chunk("two"))
    assert sorted((await texts(stores)).values()) == ["one", "two"]
    assert len(stores.index.chunks[store.id]) == 2
    assert len(await stores.rows(VectorStoreFileRow)) == 1


async def test_a_chunk_of_the_same_id_is_replaced(stores):
    """Text, metadata and vector are the new ones; its place stays."""
    store = await stores.make()
    await insert(stores, store.id, chunk("one", chunk_id="c1"), chunk("two", chunk_id="c2"))
    new = chunk("ONE", chunk_id="c1", metadata={"v": 2}) | {"embedding": [0.0, 1.0, 0.0]}
    await insert(stores, store.id, new)
    rows = {row.external_id: row for row in await stores.rows(ChunkRow)}
    assert (rows["c1"].text, rows["c1"].metadata_, rows["c1"].position) == ("ONE", {"v": 2}, 0)
    assert rows["c2"].text == "two"
    assert list(stores.index.chunks[store.id][rows["c1"].id].vector) == [0.0, 1.0, 0.0]


async def test_filters_see_what_a_documents_chunks_have_in_common(stores):
    """A value that differs between chunks, or isn't a plain one, is no attribute."""
    store = await stores.make()
    await insert(
        stores,
        store.id,
        chunk("one", metadata={"document_id": "d", "lang": "en", "n": 1, "tags": ["x"]}),
        chunk("two", metadata={"document_id": "d", "lang": "en", "n": 1.0, "tags": ["x"]}),
    )
    [row] = await stores.rows(VectorStoreFileRow)
    assert row.attributes == {"document_id": "d", "lang": "en"}
    await insert(stores, store.id, chunk("three", metadata={"document_id": "d", "lang": "de"}))
    assert {one.key for one in await stores.rows(AttributeRow)} == {"document_id"}


async def test_content_may_come_in_parts(stores):
    """LlamaStack's interleaved content, as far as it is text."""
    store = await stores.make()
    part = {"type": "text", "text": "one"}
    await insert(stores, store.id, chunk(part, chunk_id="a"), chunk([part, "two"], chunk_id="b"))
    assert await texts(stores) == {"a": "one", "b": "one\ntwo"}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (chunk("x") | {"embedding": [1.0, 2.0]}, "chunks[1].embedding"),
        (chunk(""), "chunks[1].content"),
        (chunk({"type": "image", "image": {}}), "chunks[1].content"),
        (chunk("a\x00b"), "chunks[1].content"),
        (chunk("x", metadata={"document_id": 7}), "chunks[1].metadata.document_id"),
        (chunk("x", metadata={"document_id": "\u00e4" * 1025}), "chunks[1].metadata.document_id"),
        (chunk("x") | {"embedding": [0.0, 1e39, 0.0]}, "chunks[1].embedding"),
        (chunk("x") | {"embedding": [0.0, 0.0, -1e300]}, "chunks[1].embedding"),
    ],
)
async def test_a_chunk_that_cannot_be_kept_refuses_the_insert(stores, given, param):
    """The error names the chunk, and none of the others is kept."""
    store = await stores.make()
    with pytest.raises(InvalidRequest) as refused:
        await insert(stores, store.id, chunk("good"), given)
    assert refused.value.param == param
    assert await stores.rows(ChunkRow) == []
    assert stores.index.chunks[store.id] == {}


async def test_a_time_to_live_is_refused(stores):
    """Rather than kept for ever unseen."""
    store = await stores.make()
    with pytest.raises(InvalidRequest) as refused:
        await insert(stores, store.id, chunk("x"), ttl_seconds=60)
    assert refused.value.param == "ttl_seconds"


async def test_an_unknown_store_takes_no_chunks(stores):
    """The old name of the parameter counts too; one of them must be there."""
    store = await stores.make()
    body = msgspec.convert({"chunks": [chunk("x")], "vector_db_id": store.id}, InsertChunks)
    await stores.insertion.insert(stores.principal, stores.activity, body)
    assert list((await texts(stores)).values()) == ["x"]
    with pytest.raises(NotFound):
        await stores.insertion.insert(stores.stranger, stores.activity, body)
    with pytest.raises(InvalidRequest) as refused:
        await insert(stores, None, chunk("x"))
    assert refused.value.param == "vector_store_id"


async def test_an_insert_that_breaks_off_is_not_found_and_can_be_repeated(stores):
    """Nothing waits for it: it is in no state of progress."""
    store = await stores.make()
    upsert = stores.index.upsert

    async def fail(*_: Any) -> None:
        raise UpstreamUnavailable("no index")

    stores.index.upsert = fail
    with pytest.raises(UpstreamUnavailable):
        await insert(stores, store.id, chunk("x", metadata={"document_id": "d"}))
    [row] = await stores.rows(VectorStoreFileRow)
    assert row.status == "cancelled"
    assert await stores.rows(ChunkRow) == []
    assert (await stores.stores.get(stores.principal, store.id)).status == "completed"
    stores.index.upsert = upsert
    await insert(stores, store.id, chunk("x", metadata={"document_id": "d"}))
    [row] = await stores.rows(VectorStoreFileRow)
    assert row.status == "completed"


async def test_many_chunks_at_once_are_kept(stores):
    """More than one statement or one call to the index takes."""
    store = await stores.make()
    await insert(stores, store.id, *(chunk(f"text {n}", chunk_id=f"c{n}") for n in range(501)))
    assert len(await stores.rows(ChunkRow)) == 501
    assert len(stores.index.chunks[store.id]) == 501


async def test_a_document_for_each_chunk_is_no_statement_for_each(stores):
    """Many small documents at once must not keep others from writing for long."""
    store = await stores.make()
    chunks = [chunk("x", metadata={"document_id": f"d{n}", "n": n}) for n in range(400)]
    statements: list[str] = []

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    engine = stores.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    await insert(stores, store.id, *chunks)
    event.remove(engine, "before_cursor_execute", count)
    assert len(statements) < 80
    rows = await stores.rows(VectorStoreFileRow)
    assert {row.document_id: row.attributes["n"] for row in rows} == {
        f"d{n}": n for n in range(400)
    }
    assert {(row.status, row.usage_bytes) for row in rows} == {("completed", 1)}
    assert len(await stores.rows(AttributeRow)) == 800


async def test_chunks_of_an_uploaded_file_are_that_files(stores):
    """The file is in the store as any other: listed, described, and gone when it is detached."""
    store = await stores.make()
    file_id = await stores.upload("manual.pdf")
    about = {"document_id": file_id, "headings": ["Boats", "Hulls"], "pages": [2], "start": 7}
    one = chunk("one", chunk_id="c1", metadata={"etag": "1"}, chunk_metadata=about)
    await insert(stores, store.id, one)
    two = chunk("two", chunk_id="c2", metadata={"etag": "1"}, chunk_metadata=about)
    await insert(stores, store.id, two)
    file = await stores.files.get(stores.principal, store.id, file_id)
    assert (file.status, file.chunking_strategy) == ("completed", {"type": "other"})
    assert file.attributes == {"etag": "1"}
    [row] = await stores.rows(VectorStoreFileRow)
    assert (row.filename, row.usage_bytes) == ("manual.pdf", 6)
    rows = {row.text: row for row in await stores.rows(ChunkRow)}
    assert (rows["one"].headings, rows["one"].pages, rows["one"].start) == (
        ["Boats", "Hulls"],
        [2],
        7,
    )
    indexed = {one.text for one in stores.index.chunks[store.id].values()}
    assert indexed == {"Boats\nHulls\n\none", "Boats\nHulls\n\ntwo"}
    await stores.files.detach(stores.principal, store.id, file_id)
    assert await stores.jobs("delete_attachment") == [row.id]


async def test_another_projects_file_is_only_a_name(stores):
    """Its chunks are of a document of that name, and the file stays that project's."""
    store = await stores.make()
    file_id = await stores.upload("secret.pdf", project="theirs")
    await insert(stores, store.id, chunk("one", metadata={"document_id": file_id}))
    [row] = await stores.rows(VectorStoreFileRow)
    assert (row.file_id, row.document_id, row.filename) == (None, file_id, file_id)


async def test_a_file_that_the_gateway_has_cut_takes_no_chunks(stores):
    """It is refused before anything is written, and attaching replaces inserted chunks."""
    store = await stores.make()
    file_id = await stores.upload()
    await stores.attach(store.id, file_id)
    with pytest.raises(InvalidRequest) as refused:
        await insert(stores, store.id, chunk("one", metadata={"document_id": file_id}))
    assert (refused.value.param, refused.value.code) == ("chunks", "file_already_attached")
    assert await stores.rows(ChunkRow) == []
    await stores.files.detach(stores.principal, store.id, file_id)
    await insert(stores, store.id, chunk("one", metadata={"document_id": file_id}))
    again = await stores.attach(store.id, file_id)
    assert (again.status, again.chunking_strategy["type"]) == ("in_progress", "static")
    assert len(await stores.jobs("ingest_file")) == 2
