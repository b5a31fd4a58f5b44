"""Two gateways on one PostgreSQL, one Milvus and one folder of objects are one gateway: any of
them answers for all, and what one of them was killed at, the other one finishes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import GatewayProcess
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 4
FILES = 12


@pytest.fixture
async def gateways(
    postgres_url: str, milvus_server: str, embedding_upstream: FakeVllm, tmp_path: Path
) -> AsyncIterator[list[GatewayProcess]]:
    config = {
        "discover": [embedding_upstream.url],
        "database": {"url": postgres_url},
        "vectors": {"uri": milvus_server},
        "objects": {"kind": "disk", "path": str(tmp_path / "objects")},
        "ingestion": {"lease_seconds": LEASE_SECONDS, "attach_wait_seconds": 0},
    }
    async with AsyncExitStack() as stack:
        made = [GatewayProcess(config, models=["fake-embedding"]) for _ in range(2)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in made))
        yield made


async def test_what_one_replica_was_killed_at_another_one_finishes(
    gateways: list[GatewayProcess], embedding_upstream: FakeVllm
):
    """Requests go to both; one is killed amid ingestion; all files are completed once."""
    embedding_upstream.behave("/v1/embeddings", faults.slow(before_head=0.5))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=one.base_url, timeout=60))
            for one in gateways
        ]
        turns = itertools.cycle(clients)
        made = await next(turns).post("/vector_stores", json={"name": "shared"})
        assert made.status_code == 200, made.text
        store = made.json()["id"]
        files = {}
        for number in range(FILES):
            text = f"Gull number {number} lives on rock {number}."
            upload = {"file": (f"{number}.txt", text.encode())}
            file = await next(turns).post("/files", files=upload, data={"purpose": "assistants"})
            files[file.json()["id"]] = text
        for file_id in files:
            attached = await next(turns).post(
                f"/vector_stores/{store}/files", json={"file_id": file_id}
            )
            assert attached.json()["status"] == "in_progress"
        survivor = clients[1]
        while await _count(survivor, store, "completed") < 1:
            await asyncio.sleep(0.1)
        assert await _count(survivor, store, "in_progress") > 0
        await asyncio.to_thread(gateways[0].kill)
        killed = time.monotonic()
        embedding_upstream.reset()
        while await _count(survivor, store, "in_progress"):
            assert time.monotonic() - killed < LEASE_SECONDS + 30, gateways[1].log()[-3000:]
            await asyncio.sleep(0.1)
        assert await _count(survivor, store, "completed") == FILES
        for file_id, text in files.items():
            query = {"query": text, "max_num_results": 50}
            hits = (await survivor.post(f"/vector_stores/{store}/search", json=query)).json()
            assert hits["data"][0]["file_id"] == file_id
            found = [one["file_id"] for one in hits["data"]]
            assert sorted(found) == sorted(files), "each file is found once"


async def test_what_one_replica_wrote_another_one_shows_at_once(gateways: list[GatewayProcess]):
    """Nothing is kept back in a process: stores, files and deletions alike."""
    async with (
        httpx.AsyncClient(base_url=gateways[0].base_url, timeout=60) as one,
        httpx.AsyncClient(base_url=gateways[1].base_url, timeout=60) as other,
    ):
        store = (await one.post("/vector_stores", json={"name": "x"})).json()["id"]
        assert (await other.get(f"/vector_stores/{store}")).json()["name"] == "x"
        await other.post(f"/vector_stores/{store}", json={"name": "y"})
        assert (await one.get(f"/vector_stores/{store}")).json()["name"] == "y"
        upload = {"file": ("a.txt", b"The lamp is lit.")}
        file = await one.post("/files", files=upload, data={"purpose": "assistants"})
        content = await other.get(f"/files/{file.json()['id']}/content")
        assert content.content == b"The lamp is lit."
        assert (await other.delete(f"/files/{file.json()['id']}")).status_code == 200
        assert (await one.get(f"/files/{file.json()['id']}")).status_code == 404


async def _count(client: httpx.AsyncClient, store: str, status: str) -> int:
    answer = await client.get(f"/vector_stores/{store}")
    return int(answer.json()["file_counts"][status])
