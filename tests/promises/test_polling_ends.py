"""The SDK's poll helpers end: whatever happens to a file, it comes to an end that they know."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError

import gateway.app
from tests.support.gateway import GatewayProcess
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

MODEL = "fake-embedding"


@pytest.fixture(scope="module", params=["openai", "llamastack"])
def profile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
async def running(profile: str, tmp_path_factory: pytest.TempPathFactory):
    """A gateway with its worker; callers hardly wait when attaching, so that they have to poll."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm([MODEL], kind="embedding") as embedding,
            InProcessGateway(
                discover=[embedding.url],
                models=[MODEL],
                server={"profile": profile},
                data_dir=str(tmp_path_factory.mktemp("data")),
                ingestion={"attach_wait_seconds": 0},
            ) as running,
        ):
            yield running


@pytest.fixture
async def client(running: InProcessGateway):
    async with AsyncOpenAI(base_url=running.base_url, api_key="none", max_retries=0) as client:
        yield client


async def new_store(client: AsyncOpenAI) -> str:
    return (await client.vector_stores.create(name="docs")).id


async def test_create_and_poll_ends(client):
    """An uploaded file is attached and watched until it is completed."""
    store = await new_store(client)
    file = await client.files.create(file=("a.txt", b"some text"), purpose="assistants")
    shown = await client.vector_stores.files.create_and_poll(file.id, vector_store_id=store)
    assert (shown.status, shown.last_error) == ("completed", None)
    assert shown.usage_bytes > 0


async def test_llamastacks_callers_need_not_poll(client, profile):
    """Attaching a file, and making a store of files, answers when they are done; in OpenAI's way
    making a store answers at once."""
    ids = [
        (await client.files.create(file=(f"{n}.txt", b"text"), purpose="assistants")).id
        for n in range(3)
    ]
    store = await client.vector_stores.create(name="docs", file_ids=ids)
    waits = profile == "llamastack"
    assert (store.status, store.file_counts.total) == ("completed" if waits else "in_progress", 3)
    file = await client.files.create(file=("a.txt", b"more text"), purpose="assistants")
    shown = await client.vector_stores.files.create(store.id, file_id=file.id)
    assert shown.status == ("completed" if waits else "in_progress")
    shown = await client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    assert shown.status == "completed"


async def test_upload_and_poll_ends(client):
    """Upload, attach and watch in one call."""
    shown = await client.vector_stores.files.upload_and_poll(
        vector_store_id=await new_store(client), file=("notes.md", b"# Notes\n\nSome text.")
    )
    assert shown.status == "completed"


async def test_a_file_that_cannot_be_read_ends_as_failed(client):
    """Polling ends, and `last_error` says why."""
    shown = await client.vector_stores.files.upload_and_poll(
        vector_store_id=await new_store(client), file=("broken.pdf", b"%PDF-1.7 and no more")
    )
    assert shown.status == "failed"
    assert shown.last_error is not None
    assert shown.last_error.code in {"invalid_file", "unsupported_file"}


async def test_batches_upload_and_poll_ends(client):
    """Good files and bad ones come to their ends together."""
    store = await new_store(client)
    files: Any = [(f"{n}.txt", f"text {n}".encode()) for n in range(4)]
    batch = await client.vector_stores.file_batches.upload_and_poll(
        store, files=[*files, ("bad.pdf", b"%PDF-1.7")]
    )
    assert (batch.status, batch.file_counts.total) == ("completed", 5)
    assert (batch.file_counts.completed, batch.file_counts.failed) == (4, 1)
    assert (await client.vector_stores.retrieve(store)).status == "completed"


async def test_polling_a_cancelled_batch_ends(client):
    """However far it had come, nothing of it is in work for long."""
    store = await new_store(client)
    ids = [
        (await client.files.create(file=(f"{n}.txt", b"text"), purpose="assistants")).id
        for n in range(8)
    ]
    batch = await client.vector_stores.file_batches.create(store, file_ids=ids)
    shown = await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store)
    assert shown.status == "cancelled"
    shown = await client.vector_stores.file_batches.poll(batch.id, vector_store_id=store)
    assert shown.status == "cancelled"
    counts = shown.file_counts
    assert (counts.in_progress, counts.total) == (0, 8)
    for one in (await client.vector_stores.files.list(store)).data:
        assert one.status in {"cancelled", "completed"}


async def test_polling_a_detached_file_ends(client, profile):
    """With the error for a file that isn't there."""
    store = await new_store(client)
    file = await client.files.create(file=("a.txt", b"text"), purpose="assistants")
    await client.vector_stores.files.create(store, file_id=file.id)
    await client.vector_stores.files.delete(file.id, vector_store_id=store)
    with pytest.raises(Exception, match="No file found") as raised:
        await client.vector_stores.files.poll(file.id, vector_store_id=store)
    assert isinstance(raised.value, NotFoundError) == (profile == "openai")


async def test_polling_ends_after_the_gateway_was_killed():
    """kill -9 in the middle of a batch: the gateway that comes after it ends what was begun."""
    async with (
        FakeVllm([MODEL], kind="embedding") as embedding,
        GatewayProcess(
            {
                "discover": [embedding.url],
                "ingestion": {"lease_seconds": 2, "attach_wait_seconds": 0},
            },
            models=[MODEL],
        ) as process,
        AsyncOpenAI(base_url=process.base_url, api_key="none", max_retries=0) as client,
    ):
        store = await new_store(client)
        ids = [
            (await client.files.create(file=(f"{n}.txt", b"text"), purpose="assistants")).id
            for n in range(6)
        ]
        batch = await client.vector_stores.file_batches.create(store, file_ids=ids)
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.to_thread(process.start)
        shown = await client.vector_stores.file_batches.poll(batch.id, vector_store_id=store)
        assert (shown.status, shown.file_counts.completed) == ("completed", 6)
