"""Deleted means gone: of a file, a store or a file's place in one, nothing stays in the database,
the object store or the index, also when deleting meets the ingestion of the same file."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.database.tables import (
    AttributeRow,
    ChunkRow,
    FileBatchFileRow,
    FileRow,
    UploadPartRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.ports import StoreIndex
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
TABLES = (
    FileRow,
    UploadPartRow,
    VectorStoreRow,
    VectorStoreFileRow,
    FileBatchFileRow,
    AttributeRow,
    ChunkRow,
)
_numbers = itertools.count()


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(
    embedding: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[embedding.url],
        models=["fake-embedding"],
        data_dir=str(tmp_path_factory.mktemp("gateway")),
        embedding={"batch_size": 1},
        ingestion={"attach_wait_seconds": 0},
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(
    gateway: InProcessGateway, embedding: FakeVllm
) -> AsyncIterator[httpx.AsyncClient]:
    embedding.reset()
    async with gateway.client() as client:
        yield client
    embedding.reset()


async def send(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    answer = await client.request(method, f"/v1{path}", **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def fill(client: httpx.AsyncClient) -> tuple[str, str]:
    """A store with a file on its way into it."""
    text = f"Rock {next(_numbers)} is grey.\n" * 400  # of several chunks
    file = await send(
        client,
        "POST",
        "/files",
        files={"file": ("rock.txt", text.encode())},
        data={"purpose": "assistants"},
    )
    store = await send(client, "POST", "/vector_stores", json={"name": "rocks"})
    attach = {"file_id": file["id"], "attributes": {"colour": "grey"}}
    await send(client, "POST", f"/vector_stores/{store['id']}/files", json=attach)
    return store["id"], file["id"]


async def until_status(client: httpx.AsyncClient, store: str, file: str, wanted: str) -> None:
    async with asyncio.timeout(60):
        while True:
            one = await send(client, "GET", f"/vector_stores/{store}/files/{file}")
            if one["status"] == wanted:
                return
            await asyncio.sleep(0.05)


async def detach(client: httpx.AsyncClient, store: str, file: str) -> None:
    await send(client, "DELETE", f"/vector_stores/{store}/files/{file}")


async def delete_file(client: httpx.AsyncClient, store: str, file: str) -> None:
    await send(client, "DELETE", f"/files/{file}")


async def delete_store(client: httpx.AsyncClient, store: str, file: str) -> None:
    await send(client, "DELETE", f"/vector_stores/{store}")


async def left(gateway: InProcessGateway, store: str) -> dict[str, int]:
    """What there is of anything, by where it is; without what there is none of."""
    state = gateway.application.state
    index = StoreIndex(project="default", store_id=store, dimension=384, keyword=True)
    counts = {
        "stores in the index": int(store in await state.index.stores()),
        "files in the index": len(await state.index.attachments(index)),
    }
    async with state.database.read() as session:
        for table in TABLES:
            found = await session.execute(select(func.count()).select_from(table))
            counts[table.__tablename__] = int(found.scalar_one())
    if not counts["files"]:  # a file has its content, and its conversion once that was made
        objects = [one async for one in state.objects.list("default/files/")]
        counts["objects"] = len(objects)
    return {name: count for name, count in counts.items() if count}


async def until_left(gateway: InProcessGateway, store: str, wanted: dict[str, int]) -> None:
    """Nothing but this is left, and it stays so.

    A write that was on its way may land after the deletion; its worker then takes it back.
    """
    seen: list[dict[str, int]] = []
    for _ in range(200):
        seen.append(await left(gateway, store))
        if seen[-4:] == [wanted] * 4:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"Not {wanted}, but {seen[-4:]}")


Deletion = Callable[[httpx.AsyncClient, str, str], Awaitable[None]]
FILE = {"files": 1}
STORE = {"stores in the index": 1, "vector_stores": 1}
CASES: list[tuple[Deletion, dict[str, int]]] = [
    (detach, {**FILE, **STORE}),
    (delete_file, STORE),
    (delete_store, FILE),
]
names = [one.__name__ for one, _ in CASES]


@pytest.mark.parametrize(("deletion", "stays"), CASES, ids=names)
@pytest.mark.parametrize("moment", ["completed", "at once", "embedding"])
async def test_nothing_of_what_was_deleted_stays(
    gateway: InProcessGateway,
    client: httpx.AsyncClient,
    embedding: FakeVllm,
    deletion: Deletion,
    stays: dict[str, int],
    moment: str,
):
    """Whether the file was completed, had not begun, or was just being embedded."""
    if moment != "completed":
        embedding.behave(PATH, faults.slow(before_head=0.2))
    store, file = await fill(client)
    if moment == "completed":
        await until_status(client, store, file, "completed")
    elif moment == "embedding":
        asked = len(embedding.requests_to(PATH))
        while len(embedding.requests_to(PATH)) < asked + 2:
            await asyncio.sleep(0.01)
    await deletion(client, store, file)
    try:
        await until_left(gateway, store, stays)
    finally:
        if deletion is not delete_file:
            await delete_file(client, store, file)
        if deletion is not delete_store:
            await delete_store(client, store, file)
        await until_left(gateway, store, {})
