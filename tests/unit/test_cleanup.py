"""What is deleted, expired, forgotten or left over goes away, on both databases."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, sequence
from gateway.database.tables import (
    ChunkRow,
    FileRow,
    UploadPartRow,
    UploadRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.errors import UpstreamUnavailable
from gateway.files.service import FileService
from gateway.ingestion.reaper import Reaper
from gateway.ingestion.reconciler import Reconciler
from gateway.ingestion.workspace import Workspace
from gateway.ports import IndexedChunk, StoreIndex, TryAgain
from gateway.profile import profile_of
from gateway.settings import LimitSettings, RetentionSettings
from gateway.uploads.service import UploadService
from tests.support.ingestion import DIMENSION, MODEL, PROJECT, Ingestion, ListedJobs, job
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

TEXT = "One.\n\nTwo."
DAY = 24 * 3600


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessGateway]:
    async with (
        FakeVllm([MODEL], kind="embedding") as upstream,
        InProcessGateway(
            discover=[upstream.url],
            models=[MODEL],
            ingestion={"embedded_worker": False},
            data_dir=str(tmp_path_factory.mktemp("gateway")),
        ) as gateway,
    ):
        yield gateway


@pytest.fixture
async def ingestion(
    database: Database, gateway: InProcessGateway, tmp_path: Path
) -> AsyncIterator[Ingestion]:
    made = Ingestion(database, tmp_path, gateway)
    await made.objects.start()
    yield made
    await made.objects.aclose()


@pytest.fixture
def jobs() -> ListedJobs:
    return ListedJobs()


def reconciler(ingestion: Ingestion, *, grace: float = 0, owns: bool = True) -> Reconciler:
    return Reconciler(
        ingestion.database,
        ingestion.objects,
        ingestion.index,
        grace_seconds=grace,
        owns_objects=owns,
        owns_index=owns,
    )


def reaper(ingestion: Ingestion, jobs: Any) -> Reaper:
    database, objects, limits = ingestion.database, ingestion.objects, LimitSettings()
    retention = RetentionSettings(leftover_seconds=DAY)
    files = FileService(database, objects, jobs, profile_of("openai"), limits)
    return Reaper(
        files,
        UploadService(database, objects, jobs, files, limits, retention),
        ingestion.tombstones,
        reconciler(ingestion),
        objects,
        jobs,
        retention,
    )


async def completed(ingestion: Ingestion) -> tuple[StoreIndex, FileRow, str]:
    store, file = await ingestion.make_store(), await ingestion.make_file(TEXT)
    attachment = await ingestion.attach(store, file)
    assert (await ingestion.ingest(attachment)).status == "completed"
    return store, file, attachment


async def keys(ingestion: Ingestion) -> list[str]:
    return [one.key async for one in ingestion.objects.list(f"{PROJECT}/")]


# --------------------------------------------------------------------------------------- deleted


async def test_a_detached_file_leaves_the_store_and_nothing_else(ingestion: Ingestion):
    """Vectors, chunks and the row are gone; the file is still there."""
    store, file, attachment = await completed(ingestion)
    await ingestion.change(VectorStoreFileRow, attachment, deleted_at=now())
    await ingestion.clean("delete_attachment", attachment)
    assert ingestion.indexed(store) == {}
    assert await ingestion.count(ChunkRow) == await ingestion.count(VectorStoreFileRow) == 0
    assert sorted(await keys(ingestion)) == sorted([file.object_key, file.document_key])


async def test_a_deleted_file_is_gone_from_every_store(ingestion: Ingestion):
    """Its objects too."""
    store, file, _ = await completed(ingestion)
    other = await ingestion.make_store()
    await ingestion.ingest(await ingestion.attach(other, file))
    await ingestion.change(FileRow, file.id, deleted_at=now())
    await ingestion.clean("delete_file", file.id)
    assert ingestion.indexed(store) == ingestion.indexed(other) == {}
    assert await keys(ingestion) == []
    for table in (ChunkRow, VectorStoreFileRow, FileRow):
        assert await ingestion.count(table) == 0


async def test_a_deleted_store_is_gone_and_its_files_are_not(ingestion: Ingestion):
    """Its index is dropped."""
    store, file, _ = await completed(ingestion)
    await ingestion.change(VectorStoreRow, store.store_id, deleted_at=now())
    await ingestion.clean("delete_store", store.store_id)
    assert await ingestion.index.stores() == set()
    for table in (ChunkRow, VectorStoreFileRow, VectorStoreRow):
        assert await ingestion.count(table) == 0
    assert await ingestion.objects.size(file.object_key) == len(TEXT)


@pytest.mark.parametrize("kind", ["delete_attachment", "delete_store", "delete_file"])
async def test_nothing_is_removed_that_is_not_marked(ingestion: Ingestion, kind: str):
    """A job that comes too late, or from nowhere, does no harm."""
    store, file, attachment = await completed(ingestion)
    ids = {
        "delete_attachment": attachment,
        "delete_store": store.store_id,
        "delete_file": file.id,
    }
    await ingestion.clean(kind, ids[kind])
    await ingestion.clean(kind, "nobody")
    assert len(ingestion.indexed(store)) == 2
    assert (await ingestion.row(attachment)).status == "completed"


async def test_deleting_waits_for_an_index_that_is_away(ingestion: Ingestion):
    """The row stays until the vectors are gone, however often it has to be tried."""
    store, _, attachment = await completed(ingestion)
    await ingestion.change(VectorStoreFileRow, attachment, deleted_at=now())

    async def away(*_: Any) -> None:
        raise UpstreamUnavailable("The index can't be reached.")

    honest, ingestion.index.delete = ingestion.index.delete, away
    handler = ingestion.cleanup.handlers()["delete_attachment"]
    pauses = []
    for attempt in (1, 2, 50):
        with pytest.raises(TryAgain) as raised:
            await handler(job("delete_attachment", attachment, attempt))
        pauses.append(raised.value.seconds)
    assert pauses == [5, 10, 300]
    assert await ingestion.count(VectorStoreFileRow) == 1
    ingestion.index.delete = honest
    await ingestion.clean("delete_attachment", attachment)
    assert ingestion.indexed(store) == {}


async def make_upload(ingestion: Ingestion, status: str, expires_at: int) -> str:
    upload = UploadRow(
        id=new_id("upload_"),
        project=PROJECT,
        sequence=sequence(),
        filename="a",
        purpose="assistants",
        bytes=3,
        media_type="text/plain",
        status=status,
        expires_at=expires_at,
    )
    part = UploadPartRow(
        id=new_id("part_"), project=PROJECT, upload_id=upload.id, sequence=sequence(), bytes=3
    )
    async with ingestion.database.begin() as session:
        session.add(upload)
        await session.flush()
        session.add(part)
    await ingestion.objects.put(part.object_key, _once(b"abc"))
    await ingestion.objects.put(f"{PROJECT}/uploads/{upload.id}/part_lost", _once(b"abc"))
    return upload.id


async def test_the_parts_of_an_upload_go_when_it_is_over(ingestion: Ingestion):
    """Those that never got a row as well; those of a pending upload stay."""
    over = await make_upload(ingestion, "cancelled", now())
    pending = await make_upload(ingestion, "pending", now() + 60)
    for one in (over, pending):
        await ingestion.clean("delete_upload", one)
    assert {key.split("/")[2] for key in await keys(ingestion)} == {pending}
    assert await ingestion.count(UploadPartRow) == 1
    assert await ingestion.count(UploadRow) == 2


# --------------------------------------------------------------------------------------- expired


async def test_what_has_expired_gets_its_job(ingestion: Ingestion, jobs: ListedJobs):
    """Files, uploads, and the files of vector stores; each once, whoever looks again."""
    file = await ingestion.make_file(TEXT)
    await ingestion.change(FileRow, file.id, expires_at=now() - 1)
    fresh = await ingestion.make_file(TEXT)
    await ingestion.change(FileRow, fresh.id, expires_at=now() + 60)
    upload = await make_upload(ingestion, "pending", now() - 1)
    store, _, attachment = await completed(ingestion)
    await ingestion.change(VectorStoreRow, store.store_id, expires_at=now() - 1)
    for _ in range(2):
        await reaper(ingestion, jobs).expire()
    assert sorted(jobs.jobs) == sorted(
        [("delete_file", file.id), ("delete_upload", upload), ("delete_attachment", attachment)]
    )
    assert (await ingestion.row(attachment)).deleted_at is not None
    await ingestion.clean("delete_attachment", attachment)
    assert await ingestion.index.stores() == set()
    assert await ingestion.count(VectorStoreRow) == 1


async def test_uploads_are_forgotten_a_day_after_their_end(ingestion: Ingestion, jobs: ListedJobs):
    """Once their parts are gone."""
    old = await make_upload(ingestion, "cancelled", now() - 2 * DAY)
    await make_upload(ingestion, "cancelled", now() - 2 * DAY)
    await make_upload(ingestion, "completed", now())
    await ingestion.clean("delete_upload", old)
    await reaper(ingestion, jobs).expire()
    assert await ingestion.count(UploadRow) == 2


# ------------------------------------------------------------------------------------- forgotten


async def test_a_file_whose_job_is_gone_gets_another_one(ingestion: Ingestion, jobs: ListedJobs):
    """After an hour without a sign of life; what is waiting or in work is left alone."""
    store, file = await ingestion.make_store(), await ingestion.make_file(TEXT)
    old = sequence() - 2 * 3600 * 1_000_000
    forgotten = await ingestion.attach(store, file, sequence=old)
    in_work = await ingestion.attach(
        store, await ingestion.make_file(TEXT), sequence=old, touched_at=now()
    )
    waiting = await ingestion.attach(store, await ingestion.make_file(TEXT))
    for _ in range(2):
        await reaper(ingestion, jobs).expire()
    assert jobs.jobs == [("ingest_file", forgotten)]
    assert {in_work, waiting}.isdisjoint({id_ for _, id_ in jobs.jobs})


async def test_a_tombstone_whose_job_is_gone_gets_another_one(
    ingestion: Ingestion, jobs: ListedJobs
):
    """After a day."""
    store, file, attachment = await completed(ingestion)
    await ingestion.change(VectorStoreFileRow, attachment, deleted_at=now() - 2 * DAY)
    await ingestion.change(FileRow, file.id, deleted_at=now() - 2 * DAY)
    await ingestion.change(VectorStoreRow, store.store_id, deleted_at=now() - 60)
    for _ in range(2):
        await reaper(ingestion, jobs).expire()
    assert sorted(jobs.jobs) == sorted(
        [("delete_attachment", attachment), ("delete_file", file.id)]
    )


async def test_one_task_that_fails_keeps_no_other_from_running(
    ingestion: Ingestion, jobs: ListedJobs, monkeypatch: pytest.MonkeyPatch
):
    """The files could not be looked at; the uploads are."""
    upload = await make_upload(ingestion, "pending", now() - 1)
    made = reaper(ingestion, jobs)

    async def fails() -> int:
        raise UpstreamUnavailable("no")

    monkeypatch.setattr(made._files, "delete_expired", fails)
    await made.expire()
    assert jobs.jobs == [("delete_upload", upload)]


# ------------------------------------------------------------------------------------- left over


async def test_objects_of_nobody_are_removed(ingestion: Ingestion):
    """Those of files, parts and conversions stay; so does what is younger than the grace."""
    store, file, _ = await completed(ingestion)
    upload = await make_upload(ingestion, "pending", now() + 60)
    orphan = f"{PROJECT}/files/{new_id('file-')}/content"
    await ingestion.objects.put(orphan, _once(b"abc"))
    lost = f"{PROJECT}/uploads/{upload}/part_lost"
    await reconciler(ingestion, grace=3600).run()
    assert {orphan, lost} <= set(await keys(ingestion))
    await reconciler(ingestion, owns=False).run()
    assert {orphan, lost} <= set(await keys(ingestion))
    before = set(await keys(ingestion))
    await reconciler(ingestion).run()
    assert before - set(await keys(ingestion)) == {orphan, lost}
    assert len(ingestion.indexed(store)) == 2
    assert await ingestion.objects.size(file.document_key) > 0


async def test_vectors_of_nobody_are_removed_when_seen_twice(ingestion: Ingestion):
    """Of files that aren't there, and of whole stores; those of other files stay."""
    store, _, _ = await completed(ingestion)
    orphan = StoreIndex(project=PROJECT, store_id="vs_gone", dimension=DIMENSION, keyword=True)
    for where in (store, orphan):
        chunk = IndexedChunk(
            id="vsf_gone-0", attachment_id="vsf_gone", text="x", vector=[1.0] * DIMENSION
        )
        await ingestion.index.upsert(where, [chunk])
    patient = reconciler(ingestion, grace=0.2)
    await patient.run()
    assert await ingestion.index.stores() == {store.store_id, "vs_gone"}
    await asyncio.sleep(0.25)
    await patient.run()
    assert await ingestion.index.stores() == {store.store_id}
    assert len(ingestion.indexed(store)) == 2


async def test_chunks_of_files_that_were_given_up_are_removed(ingestion: Ingestion):
    """Their worker died before it could do that."""
    _, _, attachment = await completed(ingestion)
    _, _, kept = await completed(ingestion)
    await ingestion.change(VectorStoreFileRow, attachment, status="cancelled")
    await reconciler(ingestion).run()
    assert await ingestion.chunks(attachment) == []
    assert len(await ingestion.chunks(kept)) == 2


async def test_a_sweep_asks_for_everything(ingestion: Ingestion, jobs: ListedJobs):
    """Unfinished writes of dead processes and orphans, in one pass."""
    orphan = f"{PROJECT}/files/{new_id('file-')}/content"
    await ingestion.objects.put(orphan, _once(b"abc"))
    asked = []
    honest = ingestion.objects.sweep

    async def sweep(older_than_seconds: float) -> int:
        asked.append(older_than_seconds)
        return await honest(older_than_seconds)

    ingestion.objects.sweep = sweep  # type: ignore[method-assign]
    await reaper(ingestion, jobs).sweep()
    assert asked == [DAY]
    assert await keys(ingestion) == []


# ------------------------------------------------------------------------------- the work folder


async def test_what_a_killed_process_left_in_the_work_folder_is_removed(tmp_path: Path):
    """The folder of a living one stays."""
    script = """
import asyncio, pathlib, sys
from gateway.ingestion.workspace import Workspace
async def run():
    space = Workspace(pathlib.Path(sys.argv[1]))
    async with space.open(), space.folder() as folder:
        (folder / "content").write_bytes(b"x")
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(run())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        async with Workspace(tmp_path).open():
            assert len(_contents(tmp_path)) == 1
        process.kill()
        await process.wait()
        async with Workspace(tmp_path).open():
            assert _contents(tmp_path) == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert _contents(tmp_path / "work", "*") == []


def _contents(folder: Path, name: str = "content") -> list[Path]:
    return list(folder.rglob(name))


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
