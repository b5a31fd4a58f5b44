"""Vector stores as clients of OpenAI and of LlamaStack use them, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types import VectorStore, VectorStoreDeleted
from openai.types.vector_stores import (
    VectorStoreFile,
    VectorStoreFileBatch,
    VectorStoreFileDeleted,
)
from pydantic import BaseModel
from sqlalchemy import update

import gateway.app
from gateway.database.tables import VectorStoreFileRow
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway, until
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

MODEL = "fake-embedding"
UNKNOWN = {"openai": 404, "llamastack": 400}


@pytest.fixture(scope="module", params=["openai", "llamastack"])
def profile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
async def idle(profile: str, tmp_path_factory: pytest.TempPathFactory):
    """A gateway without a worker: what is attached stays in progress until a test ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm([MODEL], kind="embedding") as embedding,
            InProcessGateway(
                discover=[embedding.url],
                models=[MODEL],
                server={"profile": profile},
                data_dir=str(tmp_path_factory.mktemp("data")),
                ingestion={
                    "embedded_worker": False,
                    "attach_wait_seconds": 0,
                    "timeout_seconds": 0.01,
                },
            ) as running,
        ):
            yield running


@pytest.fixture
async def client(idle: InProcessGateway):
    async with AsyncOpenAI(base_url=idle.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(idle: InProcessGateway):
    async with idle.client() as client:
        yield client


async def upload(client: AsyncOpenAI, name: str = "a.txt") -> str:
    return (await client.files.create(file=(name, b"text"), purpose="assistants")).id


async def finish(gateway: InProcessGateway, file_id: str, **values: Any) -> None:
    """What a worker does at the end of its work."""
    row = VectorStoreFileRow
    async with gateway.application.state.database.begin() as session:
        await session.execute(update(row).where(row.file_id == file_id).values(**values))


def fits(kind: type[BaseModel], answer: httpx.Response) -> dict[str, Any]:
    """The answer's body, after a strict look at its type; all that it requires is there."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    kind.model_validate(body, strict=True)
    assert {name for name in kind.model_fields if name not in body} == set()
    return body


async def test_answers_are_of_openais_types(idle, client, http):
    """Each object is what the SDK's types say, strictly, with every field there."""
    created = await http.post("/v1/vector_stores", json={"name": "docs", "metadata": {"a": "b"}})
    store = fits(VectorStore, created)["id"]
    days = {"expires_after": {"anchor": "last_active_at", "days": 3}}
    fits(VectorStore, await http.post(f"/v1/vector_stores/{store}", json=days))
    fits(VectorStore, await http.get(f"/v1/vector_stores/{store}"))
    file_id = await upload(client)
    files = f"/v1/vector_stores/{store}/files"
    wanted = {"file_id": file_id, "attributes": {"n": 1, "x": 1.5, "s": "t", "b": True}}
    shown = fits(VectorStoreFile, await http.post(files, json=wanted))
    assert shown["attributes"] == wanted["attributes"]
    failed = {"status": "failed", "error_code": "invalid_file", "error_message": "No text."}
    await finish(idle, file_id, **failed)
    shown = fits(VectorStoreFile, await http.get(f"{files}/{file_id}"))
    assert shown["last_error"] == {"code": "invalid_file", "message": "No text."}
    changed = await http.post(f"{files}/{file_id}", json={"attributes": {"n": 2}})
    assert fits(VectorStoreFile, changed)["attributes"] == {"n": 2}
    batches = f"/v1/vector_stores/{store}/file_batches"
    created = await http.post(batches, json={"file_ids": [file_id]})
    batch = fits(VectorStoreFileBatch, created)["id"]
    fits(VectorStoreFileBatch, await http.get(f"{batches}/{batch}"))
    fits(VectorStoreFileBatch, await http.post(f"{batches}/{batch}/cancel"))
    for path, kind in (
        ("/v1/vector_stores", VectorStore),
        (files, VectorStoreFile),
        (f"{batches}/{batch}/files", VectorStoreFile),
    ):
        page = (await http.get(path)).json()
        assert page.keys() == {"object", "data", "first_id", "last_id", "has_more"}
        assert page["object"] == "list"
        for one in page["data"]:
            kind.model_validate(one, strict=True)
    fits(VectorStoreFileDeleted, await http.delete(f"{files}/{file_id}"))
    fits(VectorStoreDeleted, await http.delete(f"/v1/vector_stores/{store}"))


async def test_the_sdk_walks_through_lists(client):
    """Auto-paging meets every store and every file once, in both orders."""
    stores = [(await client.vector_stores.create(name=f"n{n}")).id for n in range(5)]
    listed = [one.id async for one in client.vector_stores.list(limit=2) if one.id in stores]
    assert listed == stores[::-1]
    ids = [await upload(client) for _ in range(5)]
    for file_id in ids:
        await client.vector_stores.files.create(stores[0], file_id=file_id)
    files = client.vector_stores.files.list(stores[0], limit=2, order="asc")
    assert [one.id async for one in files] == ids
    page = await client.vector_stores.files.list(stores[0], before=ids[0], limit=2)
    assert [one.id for one in page.data] == [ids[2], ids[1]]


async def test_a_store_made_for_llamastack(client, profile):
    """Its fields travel in the body; what the store is comes back in either profile's way."""
    store = await client.vector_stores.create(
        name="docs",
        metadata={"team": "a"},
        extra_body={
            "embedding_model": f"vllm/{MODEL}",
            "embedding_dimension": 384,
            "provider_id": "milvus-remote",
            "provider_vector_store_id": f"chosen-{profile}",
        },
    )
    assert store.id == f"chosen-{profile}"
    extra: Any = store
    assert extra.embedding_dimension == 384
    assert extra.embedding_model == (MODEL if profile == "openai" else f"vllm/{MODEL}")
    own = {
        "provider_id": "milvus-remote",
        "provider_vector_store_id": store.id,
        "embedding_model": f"vllm/{MODEL}",
        "embedding_dimension": "384",
    }
    assert store.metadata == {"team": "a", **(own if profile == "llamastack" else {})}
    with pytest.raises(ConflictError):
        await client.vector_stores.create(extra_body={"provider_vector_store_id": store.id})
    with pytest.raises(BadRequestError) as wrong:
        await client.vector_stores.create(metadata={"embedding_model": "nobody"})
    assert wrong.value.param == "embedding_model"


async def test_what_is_not_there_is_the_profiles_error(client, http, profile):
    """404 in OpenAI's way and 400 in LlamaStack's, in one shape, for stores, files and batches."""
    store = (await client.vector_stores.create()).id
    for method, path in (
        ("GET", "/v1/vector_stores/vs_nope"),
        ("POST", "/v1/vector_stores/vs_nope"),
        ("DELETE", "/v1/vector_stores/vs_nope"),
        ("GET", "/v1/vector_stores/vs_nope/files"),
        ("POST", "/v1/vector_stores/vs_nope/files"),
        ("GET", f"/v1/vector_stores/{store}/files/file-nope"),
        ("DELETE", f"/v1/vector_stores/{store}/files/file-nope"),
        ("POST", f"/v1/vector_stores/{store}/files"),
        ("GET", f"/v1/vector_stores/{store}/file_batches/nope"),
        ("POST", f"/v1/vector_stores/{store}/file_batches/nope/cancel"),
    ):
        body = {"file_id": "file-nope"} if path.endswith("/files") else {}
        answer = await http.request(method, path, json=body if method == "POST" else None)
        error = refused(answer, UNKNOWN[profile])
        assert "nope" in error["message"], (path, error)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"chunking_strategy": {"type": "odd"}}, "chunking_strategy.type"),
        ("", {"chunking_strategy": {"type": "static"}}, "chunking_strategy.static"),
        ("", {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
        ("", {"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
        ("", {"metadata": {"k": 1}}, "metadata.k"),
        ("", {"name": 7}, "name"),
        ("", {"file_ids": "file-1"}, "file_ids"),
        ("", {"provider_vector_store_id": "../x"}, "provider_vector_store_id"),
        ("/{id}", {"metadata": {"k": "v" * 513}}, "metadata.k"),
        ("/{id}/files", {}, "file_id"),
        ("/{id}/files", {"file_id": "f", "attributes": {"k": []}}, "attributes.k"),
        ("/{id}/file_batches", {}, "file_ids"),
    ],
)
async def test_a_wrong_body_names_the_parameter(client, http, path, body, param):
    """With status 400 in either profile."""
    store = (await client.vector_stores.create()).id
    answer = await http.post(f"/v1/vector_stores{path.format(id=store)}", json=body)
    assert refused(answer, 400)["param"] == param


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("order=up", "order"),
        ("filter=odd", "filter"),
    ],
)
async def test_a_wrong_query_names_the_parameter(client, http, query, param):
    """With status 400 in either profile."""
    store = (await client.vector_stores.create()).id
    answer = await http.get(f"/v1/vector_stores/{store}/files?{query}")
    assert refused(answer, 400)["param"] == param


async def test_what_is_in_progress_says_when_to_look_again(idle, client, http):
    """`openai-poll-after-ms` is on files, batches and stores in work, and on nothing else."""
    store, file_id = (await client.vector_stores.create()).id, await upload(client)
    base = f"/v1/vector_stores/{store}"
    attached = await http.post(f"{base}/files", json={"file_id": file_id})
    batch = (await http.post(f"{base}/file_batches", json={"file_ids": [file_id]})).json()["id"]
    paths = [base, f"{base}/files/{file_id}", f"{base}/file_batches/{batch}"]
    busy = [attached, *[await http.get(path) for path in paths]]
    assert all(200 <= int(one.headers["openai-poll-after-ms"]) <= 5000 for one in busy)
    await finish(idle, file_id, status="completed", sequence=1)
    for path in paths:
        assert "openai-poll-after-ms" not in (await http.get(path)).headers


async def test_the_longer_it_takes_the_rarer_are_the_looks(idle, client, http):
    """Up to five seconds apart."""
    store, file_id = (await client.vector_stores.create()).id, await upload(client)
    path = f"/v1/vector_stores/{store}/files"
    soon = (await http.post(path, json={"file_id": file_id})).headers["openai-poll-after-ms"]
    await finish(idle, file_id, sequence=1)
    late = (await http.get(f"{path}/{file_id}")).headers["openai-poll-after-ms"]
    assert (int(soon) < 500, int(late)) == (True, 5000)


async def test_the_old_prefix_serves_the_same(client, http):
    """Clients of LlamaStack 0.2 and 0.3 use `/v1/openai/v1`."""
    store = (await client.vector_stores.create(name="old")).id
    shown = await http.get(f"/v1/openai/v1/vector_stores/{store}")
    assert shown.json()["name"] == "old"
    assert (await http.get(f"/v1/openai/v1/vector_stores/{store}/files")).status_code == 200


@pytest.mark.one_process
async def test_chunks_are_inserted_and_embedded(idle, client, http):
    """LlamaStack's insert answers null; chunks without a vector get one of the store's model."""
    store = (await client.vector_stores.create()).id
    body = {
        "vector_db_id": store,
        "chunks": [
            {"content": "embedded here", "chunk_id": "c1", "metadata": {"document_id": "d"}},
            {"content": "brought along", "chunk_id": "c2", "embedding": [0.5] * 384},
        ],
    }
    answer = await http.post("/v1/vector-io/insert", json=body)
    assert (answer.status_code, answer.json()) == (200, None)
    index: Any = idle.application.state.index
    assert {one.text for one in index.chunks[store].values()} == {"embedded here", "brought along"}
    assert all(len(one.vector) == 384 for one in index.chunks[store].values())
    body["chunks"][1]["embedding"] = [1.0]
    answer = await http.post("/v1/vector-io/insert", json=body)
    assert refused(answer, 400)["param"] == "chunks[1].embedding"


async def test_a_deleted_store_takes_nothing(client):
    """Its files can't be seen or attached any more."""
    store, file_id = await client.vector_stores.create(), await upload(client)
    await client.vector_stores.delete(store.id)
    with pytest.raises((NotFoundError, BadRequestError)):
        await client.vector_stores.files.create(store.id, file_id=file_id)
    with pytest.raises((NotFoundError, BadRequestError)):
        await client.vector_stores.files.list(store.id)


@pytest.mark.one_process
async def test_a_caller_who_leaves_is_not_waited_for(tmp_path, monkeypatch):
    """The wait for a file's end stops with its caller; the file stays attached."""
    monkeypatch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
    async with (
        FakeVllm([MODEL], kind="embedding") as embedding,
        InProcessGateway(
            discover=[embedding.url],
            models=[MODEL],
            data_dir=str(tmp_path),
            ingestion={"embedded_worker": False, "attach_wait_seconds": 60},
        ) as running,
        AsyncOpenAI(base_url=running.base_url, api_key="none", max_retries=0) as client,
        running.client() as http,
    ):
        store, file_id = await client.vector_stores.create(), await upload(client)
        path = f"/v1/vector_stores/{store.id}/files"
        with pytest.raises(httpx.ReadTimeout):
            await http.post(path, json={"file_id": file_id}, timeout=0.5)

        def ended() -> bool:
            return any(
                one.name.endswith("/files") for one in running.spans() if "vector" in one.name
            )

        await until(ended, "end of the request")
        assert (await client.vector_stores.files.retrieve(file_id, vector_store_id=store.id)).id
