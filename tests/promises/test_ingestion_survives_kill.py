"""kill -9 at any moment: what was acknowledged is ingested once and wholly, or removed wholly.

A worker is killed at random points while files are attached, detached, cancelled and deleted, and
compared with a model of what was acknowledged. `SOAK_KILLS=3000` kills that often
(`make soak-ingestion`); `SOAK_SEED` repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from gateway.database.identifiers import new_id, now, sequence
from gateway.database.tables import ChunkRow, FileRow, JobRow, VectorStoreFileRow, VectorStoreRow
from gateway.files.schemas import NewFile
from gateway.identity.principal import Principal
from gateway.vector_stores.repository import index_of
from tests.support.databases import sqlite_url
from tests.support.gateway import GatewayProcess
from tests.support.mortal_worker import DIMENSION, MortalWorkers, parts, vector_of
from tests.support.upstream import FakeVllm, faults

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(0)]

KILLS = int(os.environ.get("SOAK_KILLS", "100"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1_000_000)))
QUIET_SECONDS = 60
PROJECT = "default"


class World:
    """What callers do, and a model of what they were told."""

    def __init__(self, folder: Path, url: str, chance: random.Random) -> None:
        self.have = parts(folder, url)
        self.chance = chance
        self.store: Any = None
        self.attached: dict[str, list[str]] = {}
        """By the id of the attachment, the texts of its chunks."""
        self.files: dict[str, str] = {}
        """By the id of the attachment, its file."""
        self.kept: set[str] = set()
        """Files that nobody has deleted."""
        self.cancelled: set[str] = set()
        self.empty: set[str] = set()

    async def prepare(self) -> None:
        await self.have.objects.start()
        row = VectorStoreRow(
            id=new_id("vs_"),
            project=PROJECT,
            sequence=sequence(),
            name=None,
            embedding_model="model",
            dimension=DIMENSION,
            keyword=False,
            provider_id="milvus",
            last_active_at=now(),
        )
        async with self.have.database.begin() as session:
            session.add(row)
        self.store = index_of(row)
        await self.have.index.create(self.store)

    async def act(self) -> None:
        """One thing that a caller may do, through to its acknowledgement."""
        dice = self.chance.random()
        if dice < 0.7 or not self.attached:
            await self._attach()
        elif dice < 0.8:
            await self._detach()
        elif dice < 0.9:
            await self._cancel()
        else:
            await self._delete()

    async def _attach(self) -> None:
        number = 0 if self.chance.random() < 0.1 else self.chance.randint(1, 25)
        # Some texts are shared with other files, so that vectors are taken over from them.
        texts = [
            f"text {self.chance.randrange(40)}" if self.chance.random() < 0.3 else new_id("text ")
            for _ in range(number)
        ]
        file = await self.have.files.store(
            PROJECT,
            _once("\n\n".join(texts).encode() or b" "),
            lambda: NewFile(filename="a.txt", purpose="assistants", media_type=None),
        )
        row = VectorStoreFileRow(
            id=new_id("vsf_"),
            project=PROJECT,
            store_id=self.store.store_id,
            sequence=sequence(),
            file_id=file.id,
            chunking={"type": "static", "static": {}},
        )
        async with self.have.database.begin() as session:
            session.add(row)
            payload = {"project": PROJECT, "id": row.id}
            await self.have.queue.put(session, "ingest_file", payload)
        self.attached[row.id] = texts
        self.files[row.id] = file.id
        self.kept.add(file.id)
        if not texts:
            self.empty.add(row.id)

    async def _detach(self) -> None:
        attachment = self.chance.choice([*self.attached])
        async with self.have.database.begin() as session:
            await session.execute(
                update(VectorStoreFileRow)
                .where(VectorStoreFileRow.id == attachment)
                .values(deleted_at=now())
            )
            payload = {"project": PROJECT, "id": attachment}
            await self.have.queue.put(session, "delete_attachment", payload)
        self._forget(attachment)

    async def _cancel(self) -> None:
        attachment = self.chance.choice([*self.attached])
        async with self.have.database.begin() as session:
            done = await session.execute(
                update(VectorStoreFileRow)
                .where(
                    VectorStoreFileRow.id == attachment,
                    VectorStoreFileRow.status == "in_progress",
                )
                .values(status="cancelled")
            )
        if done.rowcount:
            self.cancelled.add(attachment)

    async def _delete(self) -> None:
        attachment = self.chance.choice([*self.attached])
        await self.have.files.delete(Principal(), self.files[attachment])
        self.kept.discard(self.files[attachment])
        self._forget(attachment)

    def _forget(self, attachment: str) -> None:
        del self.attached[attachment]
        self.cancelled.discard(attachment)

    # -- what there is --------------------------------------------------------------------------

    async def statuses(self) -> dict[str, str]:
        async with self.have.database.read() as session:
            found = await session.execute(
                select(VectorStoreFileRow.id, VectorStoreFileRow.status).where(
                    VectorStoreFileRow.deleted_at.is_(None)
                )
            )
            return {row[0]: row[1] for row in found}

    async def chunks(self) -> dict[str, list[str]]:
        """By attachment, the texts in the database."""
        async with self.have.database.read() as session:
            found = await session.execute(
                select(ChunkRow.attachment_id, ChunkRow.text).order_by(
                    ChunkRow.attachment_id, ChunkRow.position
                )
            )
            chunks: dict[str, list[str]] = {}
            for attachment, text in found:
                chunks.setdefault(attachment, []).append(text)
            return chunks

    async def visible_is_whole(self) -> int:
        """Whatever is completed now is completely there; how many that are."""
        completed = [
            one for one, status in (await self.statuses()).items() if status == "completed"
        ]
        chunks, indexed = await self.chunks(), self.have.index.texts(self.store)
        still = await self.statuses()
        for one in completed:
            if one in self.attached and one in still:
                assert chunks.get(one) == self.attached[one], f"seed {SEED}"
                for position, text in enumerate(self.attached[one]):
                    assert indexed[f"{one}-{position}"] == text, f"seed {SEED}"
        return len(completed)

    async def jobs(self) -> int:
        async with self.have.database.read() as session:
            found = await session.execute(select(func.count()).select_from(JobRow))
            return int(found.scalar_one())


@pytest.fixture
async def world(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[World]:
    shutil.copy(sqlite_template, tmp_path / "understudy.db")
    made = World(tmp_path, sqlite_url(tmp_path), random.Random(SEED))
    await made.prepare()
    yield made
    await made.have.index.aclose()
    await made.have.objects.aclose()
    await made.have.database.aclose()


async def test_a_worker_that_is_killed_again_and_again_loses_nothing(world: World, tmp_path: Path):
    """Every file that was acknowledged ends completed once and wholly, and only that is found."""
    chance = world.chance
    with MortalWorkers(tmp_path, sqlite_url(tmp_path)) as workers:
        await asyncio.to_thread(workers.start)
        for kill in range(KILLS):
            for _ in range(chance.randrange(3)):
                await world.act()
            await asyncio.sleep(chance.uniform(0.01, 0.25))
            await asyncio.to_thread(workers.kill)
            if kill % 10 == 0:
                await world.visible_is_whole()
            await asyncio.to_thread(workers.start)
        await _until_quiet(world)
    await world.visible_is_whole()
    statuses = await world.statuses()
    wanted = {
        one: "cancelled"
        if one in world.cancelled
        else "failed"
        if one in world.empty
        else "completed"
        for one in world.attached
    }
    assert statuses == wanted, f"seed {SEED}"
    completed = {one: world.attached[one] for one in world.attached if wanted[one] == "completed"}
    assert len(completed) > KILLS / 10
    await _assert_nothing_else(world, completed)


async def _assert_nothing_else(world: World, completed: dict[str, list[str]]) -> None:
    """After one pass of the reconciler, as it runs a few times a day."""
    for _ in range(2):
        await world.have.reconciler.run()
    assert await world.chunks() == completed, f"seed {SEED}"
    expected = {
        f"{one}-{position}": text
        for one, texts in completed.items()
        for position, text in enumerate(texts)
    }
    assert world.have.index.texts(world.store) == expected, f"seed {SEED}"
    for one in [*completed][:20]:
        text = completed[one][0]
        hits = await world.have.index.search(world.store, vector_of(text), 1000)
        same = sorted(id_ for id_, other in expected.items() if other == text)
        assert sorted(hit.id for hit in hits if hit.score > 0.999999) == same, f"seed {SEED}"
    async with world.have.database.read() as session:
        files = set((await session.execute(select(FileRow.id))).scalars())
    assert files == world.kept, f"seed {SEED}"
    kept = {one.key.split("/")[2] async for one in world.have.objects.list(f"{PROJECT}/")}
    assert kept == files, f"seed {SEED}"


async def _until_quiet(world: World) -> None:
    """Nothing is left to be done."""
    end = time.monotonic() + QUIET_SECONDS + KILLS / 20
    while await world.jobs():
        assert time.monotonic() < end, f"{await world.jobs()} jobs are left (seed {SEED})"
        await asyncio.sleep(0.05)


# --------------------------------------------------------------------------- the server as it runs

SERVER_KILLS = 2
FILES_BETWEEN = 3


async def test_a_server_that_is_killed_goes_on_where_it_was(embedding_upstream: FakeVllm):
    """SQLite, Milvus Lite, docling and all: what was attached is found once after each restart."""
    embedding_upstream.behave("/v1/embeddings", faults.slow(before_head=0.3))
    config = {
        "discover": [embedding_upstream.url],
        "ingestion": {"lease_seconds": 2, "attach_wait_seconds": 0, "max_attempts": 100},
    }
    texts: dict[str, str] = {}
    async with (
        GatewayProcess(config, models=["fake-embedding"]) as gateway,
        httpx.AsyncClient(base_url=gateway.base_url, timeout=60) as client,
    ):
        store = (await client.post("/vector_stores", json={"name": "rocks"})).json()["id"]
        for _ in range(SERVER_KILLS):
            for _ in range(FILES_BETWEEN):
                text = f"Rock {len(texts)} is grey."
                upload = {"file": ("rock.txt", text.encode())}
                answer = await client.post("/files", files=upload, data={"purpose": "assistants"})
                file = answer.json()["id"]
                attach = {"file_id": file}
                answer = await client.post(f"/vector_stores/{store}/files", json=attach)
                assert answer.status_code == 200, answer.text
                texts[file] = text
            await asyncio.sleep(random.uniform(0, 2))
            await asyncio.to_thread(gateway.kill)
            await asyncio.to_thread(gateway.start)
        embedding_upstream.reset()
        async with asyncio.timeout(60):
            while (counts := await _counts(client, store))["in_progress"]:
                await asyncio.sleep(0.1)
        assert counts["completed"] == counts["total"] == len(texts)
        for file, text in texts.items():
            query = {"query": text, "max_num_results": 50}
            answer = await client.post(f"/vector_stores/{store}/search", json=query)
            hits = [one["file_id"] for one in answer.json()["data"]]
            assert hits[0] == file
            assert sorted(hits) == sorted(texts)


async def _counts(client: httpx.AsyncClient, store: str) -> dict[str, int]:
    counts: dict[str, int] = (await client.get(f"/vector_stores/{store}")).json()["file_counts"]
    return counts


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
