"""Vector stores, on both databases: what is made, seen, changed and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, update

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.paging import PageRequest
from gateway.database.tables import VectorStoreFileRow, VectorStoreRow
from gateway.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
    NotFound,
    UpstreamUnavailable,
)
from gateway.vector_stores.schemas import ExpiresAfter, FileCounts, UpdateVectorStore
from tests.support.stores import DIMENSION, Stores

pytestmark = pytest.mark.anyio

WEEK = ExpiresAfter(anchor="last_active_at", days=7)


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


async def expire(stores: Stores, store_id: str) -> None:
    async with stores.database.begin() as session:
        await session.execute(
            update(VectorStoreRow)
            .where(VectorStoreRow.id == store_id)
            .values(expires_at=now() - 1, expires_after_days=1)
        )


async def test_a_new_store_has_room_in_the_index(stores):
    """Its vectors are those of the default model, and it can be searched by words where the index
    can."""
    shown = await stores.make(name="docs", description="All docs", metadata={"team": "a"})
    assert (shown.name, shown.description, shown.metadata) == ("docs", "All docs", {"team": "a"})
    assert (shown.embedding_model, shown.embedding_dimension) == ("embed", DIMENSION)
    assert (shown.status, shown.file_counts, shown.usage_bytes) == ("completed", FileCounts(), 0)
    assert (shown.expires_after, shown.expires_at) == (None, None)
    assert set(stores.index.chunks) == {shown.id}
    [row] = await stores.rows(VectorStoreRow)
    assert (row.project, row.dimension, row.keyword) == ("ours", DIMENSION, True)
    assert shown.id.startswith("vs_")
    assert len(shown.id) == 35


@pytest.mark.parametrize(
    ("fields", "model", "provider"),
    [
        ({}, "embed", "milvus"),
        ({"embedding_model": "embed-5"}, "embed-5", "milvus"),
        ({"embedding_model": "vllm/embed-5", "embedding_dimension": 5}, "embed-5", "milvus"),
        ({"metadata": {"embedding_model": "embed-5"}}, "embed-5", "milvus"),
        (
            {"embedding_model": "embed", "metadata": {"embedding_model": "embed-5"}},
            "embed-5",
            "milvus",
        ),
        ({"metadata": {"embedding_dimension": 3}}, "embed", "milvus"),
        ({"metadata": {"embedding_dimension": "3"}, "embedding_dimension": 9}, "embed", "milvus"),
        ({"provider_id": "mine", "metadata": {"provider_id": "theirs"}}, "embed", "mine"),
        ({"metadata": {"provider_id": "theirs"}}, "embed", "theirs"),
    ],
)
async def test_llamastacks_fields_count_in_body_and_metadata(stores, fields, model, provider):
    """Metadata wins for the embedding, the body for the provider, as in LlamaStack."""
    shown = await stores.make(**fields)
    assert shown.embedding_model == model
    [row] = await stores.rows(VectorStoreRow)
    assert row.provider_id == provider


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"embedding_model": "nobody"}, "model_not_found"),
        ({"embedding_model": "chat"}, "model_not_supported"),
        ({"metadata": {"embedding_model": "chat"}}, "model_not_supported"),
        ({"embedding_dimension": 4}, "invalid_value"),
        ({"embedding_model": "embed-5", "embedding_dimension": 3}, "invalid_value"),
        ({"metadata": {"embedding_dimension": "many"}}, "invalid_value"),
    ],
)
async def test_an_embedding_that_cannot_be_is_refused(stores, fields, code):
    """The error is a 400 that names `embedding_model`, and nothing is made."""
    with pytest.raises(InvalidRequest) as refused:
        await stores.make(**fields)
    assert (refused.value.status, refused.value.param) == (400, "embedding_model")
    assert refused.value.code == code
    assert stores.index.chunks == {}
    assert await stores.rows(VectorStoreRow) == []


async def test_several_models_and_no_default_is_a_question(database):
    """The gateway doesn't guess which of two embedding models is meant."""
    stores = Stores(database, default_model=None)
    with pytest.raises(InvalidRequest, match="embedding_model is required"):
        await stores.make()


async def test_the_caller_may_choose_the_id(stores):
    """It is taken from then on, in every project and until the store is really gone."""
    shown = await stores.make(provider_vector_store_id="my-store")
    assert shown.id == "my-store"
    with pytest.raises(Conflict) as refused:
        await stores.make(provider_vector_store_id="my-store")
    assert refused.value.param == "provider_vector_store_id"
    stores.principal, stores.stranger = stores.stranger, stores.principal
    with pytest.raises(Conflict):
        await stores.make(provider_vector_store_id="my-store")
    await stores.stores.delete(stores.stranger, "my-store")
    with pytest.raises(Conflict, match="still being deleted"):
        await stores.make(provider_vector_store_id="my-store")


async def test_files_come_with_the_store(stores):
    """Rows and jobs are there when the answer is; the shared strategy is each file's."""
    ids = [await stores.upload(f"{n}.txt") for n in range(3)]
    shown = await stores.make(file_ids=[*ids, ids[0]])
    assert shown.status == "in_progress"
    assert shown.file_counts == FileCounts(in_progress=3, total=3)
    rows = await stores.rows(VectorStoreFileRow)
    assert {row.file_id for row in rows} == set(ids)
    assert sorted(await stores.jobs("ingest_file")) == sorted(row.id for row in rows)
    assert stores.queue.wakes == 1


async def test_an_unknown_file_makes_no_store(stores):
    """The error names the file's place in the request."""
    known = await stores.upload()
    strangers = await stores.upload(project="theirs")
    for bad in ("file-nope", strangers, "file\x00"):
        with pytest.raises(NotFound) as refused:
            await stores.make(file_ids=[known, bad])
        assert refused.value.param == "file_ids[1]"
    assert await stores.rows(VectorStoreRow) == []
    assert stores.index.chunks == {}


async def test_an_index_that_fails_makes_no_store(stores):
    """A store that can be seen can be filled."""

    async def fail(_: Any) -> None:
        raise RuntimeError("no index")

    stores.index.create = fail
    with pytest.raises(RuntimeError):
        await stores.make()
    assert await stores.rows(VectorStoreRow) == []


async def test_a_project_sees_its_own_stores_only(stores):
    """Every call of another project ends as if there were no such store."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id)
    other = stores.stranger
    assert (await stores.stores.list(other, PageRequest())).data == []
    calls = [
        stores.stores.get(other, store.id),
        stores.stores.update(other, store.id, UpdateVectorStore(name="x")),
        stores.stores.delete(other, store.id),
        stores.files.list(other, store.id, PageRequest()),
        stores.files.get(other, store.id, file_id),
        stores.files.detach(other, store.id, file_id),
        stores.batches.get(other, store.id, "vsfb_x"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call
    assert (await stores.stores.get(stores.principal, store.id)).name == ""


@pytest.mark.parametrize(("profile", "error"), [("openai", 404), ("llamastack", 400)])
async def test_an_unknown_store_is_the_profiles_error(database, profile, error):
    """404 in OpenAI's way, 400 in LlamaStack's."""
    stores = Stores(database, profile=profile)
    for call in (
        stores.stores.get(stores.principal, "vs_nope"),
        stores.stores.get(stores.principal, "vs_\x00"),
        stores.stores.delete(stores.principal, "vs_nope"),
        stores.stores.delete(stores.principal, "vs_\x00"),
    ):
        with pytest.raises(GatewayError) as refused:
            await call
        assert refused.value.status == error


async def test_counts_are_those_of_the_files(stores):
    """Each state is counted, sizes are summed, and the store is in progress while one file is."""
    store = await stores.make()
    states = ["completed", "completed", "failed", "cancelled", "in_progress"]
    for number, status in enumerate(states):
        file_id = await stores.upload()
        await stores.attach(store.id, file_id)
        await stores.finish(file_id, status, usage_bytes=10**number)
    shown = await stores.stores.get(stores.principal, store.id)
    assert shown.file_counts == FileCounts(
        completed=2, failed=1, cancelled=1, in_progress=1, total=5
    )
    assert (shown.usage_bytes, shown.status) == (11_111, "in_progress")
    await stores.finish(file_id)
    shown = await stores.stores.get(stores.principal, store.id)
    assert shown.status == "completed"


async def test_a_page_costs_the_same_however_long_it_is(stores):
    """No query for each store: one for the page and one for all counts."""
    for _ in range(12):
        await stores.make()
    statements: list[str] = []
    engine = stores.database.engine.sync_engine
    event.listen(
        engine, "before_cursor_execute", lambda *given: statements.append(given[2]), once=False
    )
    await stores.stores.list(stores.principal, PageRequest(limit=12))
    selects = [one for one in statements if one.lstrip().upper().startswith("SELECT")]
    assert len(selects) == 2, statements


async def test_what_is_not_named_in_an_update_stays(stores):
    """Null clears a field; metadata is replaced as a whole."""
    store = await stores.make(name="a", metadata={"x": "1", "y": "2"}, expires_after=WEEK)
    update_ = stores.stores.update
    who = stores.principal
    shown = await update_(who, store.id, UpdateVectorStore(metadata={"x": "3"}))
    assert (shown.name, shown.metadata, shown.expires_after) == ("a", {"x": "3"}, WEEK)
    shown = await update_(who, store.id, UpdateVectorStore(expires_after=None))
    assert (shown.expires_after, shown.expires_at, shown.metadata) == (None, None, {"x": "3"})
    shown = await update_(who, store.id, UpdateVectorStore(name=None, metadata=None))
    assert (shown.name, shown.metadata) == ("", {})
    shown = await update_(who, store.id, UpdateVectorStore(expires_after=WEEK))
    assert shown.expires_at == shown.last_active_at + 7 * 24 * 3600
    assert shown == await stores.stores.get(who, store.id)


async def test_an_expired_store_says_so_and_takes_nothing(stores):
    """It can be seen, renamed and deleted; it isn't filled and doesn't come back to life."""
    store, file_id = await stores.make(expires_after=WEEK), await stores.upload()
    await expire(stores, store.id)
    shown = await stores.stores.update(stores.principal, store.id, UpdateVectorStore(name="old"))
    assert (shown.status, shown.name) == ("expired", "old")
    with pytest.raises(InvalidRequest) as refused:
        await stores.attach(store.id, file_id)
    assert refused.value.code == "vector_store_expired"
    with pytest.raises(InvalidRequest):
        await stores.stores.update(
            stores.principal, store.id, UpdateVectorStore(expires_after=WEEK)
        )
    assert (await stores.stores.get(stores.principal, store.id)).status == "expired"
    await stores.stores.delete(stores.principal, store.id)


async def test_attaching_puts_expiry_off(stores):
    """`last_active_at` moves with use, and `expires_at` with it."""
    store = await stores.make(expires_after=WEEK)
    old = now() - 1000
    async with stores.database.begin() as session:
        await session.execute(update(VectorStoreRow).values(last_active_at=old))
    await stores.attach(store.id, await stores.upload())
    await stores.active.write()
    shown = await stores.stores.get(stores.principal, store.id)
    assert shown.last_active_at > old
    assert shown.expires_at == shown.last_active_at + 7 * 24 * 3600


async def test_a_database_that_is_away_stops_no_notes_of_use(stores, monkeypatch):
    """A store in use must not expire because a use could not be written once."""
    store = await stores.make(expires_after=WEEK)
    old = now() - 1000
    async with stores.database.begin() as session:
        await session.execute(update(VectorStoreRow).values(last_active_at=old))

    def away() -> Any:
        raise UpstreamUnavailable("The database can't be reached at the moment.")

    stores.active.note(stores.principal.project, store.id)
    with monkeypatch.context() as patch:
        patch.setattr(stores.database, "begin", away)
        await stores.active.write()
    stores.active.note(stores.principal.project, store.id)
    await stores.active.write()
    assert (await stores.stores.get(stores.principal, store.id)).last_active_at > old


async def test_a_deleted_store_is_gone_at_once(stores):
    """Files in work are called off with it, and one job removes what is left."""
    store, file_id = await stores.make(), await stores.upload()
    await stores.attach(store.id, file_id)
    gone = await stores.stores.delete(stores.principal, store.id)
    assert (gone.id, gone.object, gone.deleted) == (store.id, "vector_store.deleted", True)
    assert await stores.jobs("delete_store") == [store.id]
    [row] = await stores.rows(VectorStoreFileRow)
    assert row.deleted_at is not None
    with pytest.raises(NotFound):
        await stores.stores.get(stores.principal, store.id)
    with pytest.raises(NotFound):
        await stores.stores.delete(stores.principal, store.id)
    assert (await stores.stores.list(stores.principal, PageRequest())).data == []
    assert await stores.jobs("delete_store") == [store.id]


async def test_llamastacks_metadata_is_shown_and_kept(database):
    """A client may send back what it got; it may not change it."""
    stores = Stores(database, profile="llamastack")
    shown = await stores.make(metadata={"team": "a"}, provider_id="faiss")
    own = {
        "provider_id": "faiss",
        "provider_vector_store_id": shown.id,
        "embedding_model": "vllm/embed",
        "embedding_dimension": "3",
    }
    assert shown.metadata == {"team": "a", **own}
    assert len(shown.id) == len("vs_") + 36
    full = {f"k{n}": "v" for n in range(16)}
    again = await stores.stores.update(
        stores.principal, shown.id, UpdateVectorStore(metadata={**full, **own})
    )
    assert again.metadata == {**full, **own}
    with pytest.raises(InvalidRequest) as refused:
        await stores.stores.update(
            stores.principal, shown.id, UpdateVectorStore(metadata={"provider_id": "milvus"})
        )
    assert refused.value.param == "metadata.provider_id"


@pytest.mark.parametrize(("profile", "empty"), [("openai", None), ("llamastack", "")])
async def test_an_empty_list_has_the_profiles_ids(database, profile, empty):
    """Null in OpenAI's way, an empty string in LlamaStack's."""
    stores = Stores(database, profile=profile)
    page = await stores.stores.list(stores.principal, PageRequest())
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([], empty, empty, False)
