"""The embedded vector database runs beside the gateways that share it, and outlives any of them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.milvus import MilvusIndex
from gateway.errors import UpstreamError
from gateway.ports import IndexedChunk, StoreIndex
from gateway.settings import VectorSettings

pytestmark = pytest.mark.anyio

STORE = StoreIndex(project="default", store_id="vs_1", dimension=4, keyword=False)
WRITER = """
import asyncio, sys
from pathlib import Path
from adapters.milvus import MilvusIndex
from gateway.settings import VectorSettings
from tests.promises.test_lite_survives import STORE, chunks

async def main():
    index = MilvusIndex(VectorSettings(), Path(sys.argv[1]))
    await index.create(STORE)
    for number in range(100_000):
        await index.upsert(STORE, chunks(number))
        print(number, flush=True)

asyncio.run(main())
"""


def chunks(number: int, count: int = 5) -> list[IndexedChunk]:
    return [
        IndexedChunk(
            id=f"c{number}-{part}", attachment_id=f"f{number}", text="", vector=[1.0, part, 0, 0]
        )
        for part in range(count)
    ]


def index_in(folder: Path) -> MilvusIndex:
    return MilvusIndex(VectorSettings(), folder)


def servers(folder: Path) -> list[int]:
    """The processes that serve a Lite in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            if b"lite_server" in command and str((entry / "cwd").readlink()).startswith(
                str(folder)
            ):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


async def test_a_killed_server_is_started_again(tmp_path):
    """In the middle of writes: the calls wait for it, and nothing acknowledged is lost."""
    index = index_in(tmp_path)
    await index.create(STORE)
    killed = []

    async def write(first: int) -> None:
        for number in range(first, first + 30):
            await index.upsert(STORE, chunks(number))

    async def kill() -> None:
        await asyncio.sleep(0.1)
        (pid,) = servers(tmp_path)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        await index.settle(STORE)

    await asyncio.gather(*(write(100 * writer) for writer in range(4)), kill())
    assert servers(tmp_path) != killed
    expected = {f"f{100 * writer + number}" for writer in range(4) for number in range(30)}
    assert await index.attachments(STORE) == expected
    hits = await index.search(STORE, [1.0, 0, 0, 0], 1000)
    assert len(hits) == 5 * len(expected)
    await index.aclose()
    assert servers(tmp_path) == []


@pytest.mark.alone
async def test_another_process_takes_over(tmp_path):
    """The one that owns the server is killed outright: seconds later it is this one."""
    writer = subprocess.Popen(  # noqa: ASYNC220  (returns at once)
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    acknowledged = -1
    while acknowledged < 20:
        acknowledged = int(await asyncio.to_thread(writer.stdout.readline))
    index = index_in(tmp_path)
    assert len(await index.attachments(STORE)) > 20
    (before,) = servers(tmp_path)
    writer.kill()
    acknowledged = int(writer.stdout.read().split()[-1])
    writer.wait()
    killed = time.monotonic()
    attachments = await index.attachments(STORE)
    assert time.monotonic() - killed < 15
    assert {f"f{number}" for number in range(acknowledged + 1)} <= attachments
    (after,) = servers(tmp_path)
    assert after != before
    await index.aclose()


@pytest.mark.alone
async def test_gateways_on_one_folder_share_a_server(tmp_path):
    """One process serves all; when its owner goes in order, the next one goes on."""
    first, *others = (index_in(tmp_path) for _ in range(4))
    await first.create(STORE)
    await asyncio.gather(*(index.create(STORE) for index in others))
    assert len(servers(tmp_path)) == 1
    for number, index in enumerate([first, *others]):
        await index.upsert(STORE, chunks(number))
    await first.settle(STORE)
    for index in [first, *others]:
        assert len(await index.search(STORE, [1.0, 0, 0, 0], 100)) == 20
    for closing in (first, others[0]):
        began = time.monotonic()
        await closing.aclose()
        assert time.monotonic() - began < 10
    await asyncio.gather(*(index.upsert(STORE, chunks(9)) for index in others[1:]))
    assert len(await others[-1].attachments(STORE)) == 5
    assert len(servers(tmp_path)) == 1
    await asyncio.gather(*(index.aclose() for index in others))
    assert servers(tmp_path) == []


async def test_nobody_else_can_read_it(tmp_path):
    """The folder and the socket are for this user only, also where the path is long."""
    folder = tmp_path / ("x" * 120)
    index = index_in(folder)
    await index.create(STORE)
    lite = folder / "milvus-lite"
    assert stat.S_IMODE(lite.stat().st_mode) == 0o700
    assert stat.S_IMODE((lite / "lite.sock").stat().st_mode) & 0o077 == 0
    assert {"data", "lite.sock", "owner.lock"} == {path.name for path in lite.iterdir()}
    await index.aclose()


async def test_a_folder_that_cannot_be_used_is_said(tmp_path):
    """At the first call, not at the start, and again at the next one."""
    (tmp_path / "milvus-lite").write_text("a file")
    index = index_in(tmp_path)
    for _ in range(2):
        with pytest.raises(UpstreamError, match="Milvus Lite can't be used"):
            await index.create(STORE)
    await index.aclose()
