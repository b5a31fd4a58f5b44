"""Many callers at once, on both databases: none is stuck, and what was shown is worked on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest

from gateway.database.engine import Database
from gateway.database.tables import AttributeRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import InvalidRequest, NotFound
from gateway.files.repository import FileRepository
from gateway.vector_stores.schemas import (
    CreateFileBatch,
    StaticChunking,
    StaticSizes,
    UpdateStoreFile,
    UpdateVectorStore,
)
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio

CALLERS = 6
CALLS_EACH = 25


async def test_everything_at_once(database: Database) -> None:
    """Attaching, changing, cancelling and deleting the same few things from many places: no call
    fails but by what was deleted before it, and each row that is left has its job."""
    stores = Stores(database)
    shared = [(await stores.make()).id for _ in range(2)]
    files = await stores.upload_many([f"{n}.txt" for n in range(8)])

    async def delete_file(file_id: str) -> None:
        async with database.begin() as session:
            await FileRepository(session).tombstone("ours", file_id)
            await stores.queue.put(session, "delete_file", {"project": "ours", "id": file_id})

    async def batch(store_id: str, chance: random.Random) -> None:
        wanted = CreateFileBatch(file_ids=chance.sample(files, 4), attributes={"b": 1})
        who = stores.principal
        made = await stores.batches.create(who, stores.activity, store_id, wanted)
        if chance.random() < 0.5:
            await stores.batches.cancel(who, store_id, made.id)

    def call(chance: random.Random) -> Awaitable[Any]:
        store_id, file_id = chance.choice(shared), chance.choice(files)
        who, number = stores.principal, chance.random()
        if number < 0.35:
            size = chance.choice([200, 300])
            sizes = StaticSizes(max_chunk_size_tokens=size, chunk_overlap_tokens=0)
            strategy = StaticChunking(static=sizes)
            return stores.attach(
                store_id, file_id, attributes={"a": size}, chunking_strategy=strategy
            )
        if number < 0.55:
            wanted = UpdateStoreFile(attributes={"n": chance.randrange(9), "t": "x"})
            return stores.files.update(who, store_id, file_id, wanted)
        if number < 0.7:
            return stores.files.detach(who, store_id, file_id)
        if number < 0.8:
            return batch(store_id, chance)
        if number < 0.9:
            return stores.finish(file_id)
        if number < 0.97:
            return stores.stores.update(who, store_id, UpdateVectorStore(name="n"))
        return delete_file(file_id)

    async def caller(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(CALLS_EACH):
            with suppress(NotFound, InvalidRequest):
                await call(chance)
        if seed == 0:
            await stores.stores.delete(stores.principal, shared[0])

    async with asyncio.timeout(60):
        await asyncio.gather(*(caller(seed) for seed in range(CALLERS)))

    rows = await stores.rows(VectorStoreFileRow)
    dropped = {row.id for row in await stores.rows(VectorStoreRow) if row.deleted_at is not None}
    assert dropped == {shared[0]}
    assert await stores.jobs("delete_store") == [shared[0]]
    ingested, removed = await stores.jobs("ingest_file"), await stores.jobs("delete_attachment")
    deleted_files = set(await stores.jobs("delete_file"))
    assert sorted(ingested) == sorted(row.id for row in rows)
    assert len(set(removed)) == len(removed)
    live = [row for row in rows if row.deleted_at is None]
    assert len({(row.store_id, row.file_id) for row in live}) == len(live)
    for row in rows:
        if row.store_id in dropped:
            continue
        cleared = row.id in removed or row.file_id in deleted_files
        assert (row.deleted_at is not None) == cleared, row.id
    by_row: dict[str, dict[str, Any]] = {row.id: {} for row in rows}
    for one in await stores.rows(AttributeRow):
        by_row[one.attachment_id][one.key] = one.number if one.text is None else one.text
    assert by_row == {row.id: row.attributes for row in rows}
