"""What is particular to a folder: keys as paths, writers that are killed, a folder that can't be
written. The rest is in tests/contract/test_object_store.py."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.disk import DiskObjectStore
from adapters.disk.files import WRITING
from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.ports import ObjectMissing

pytestmark = pytest.mark.anyio

KEY = "default/files/file-ab12/content"
WRITER = """
import asyncio, sys
from pathlib import Path
from adapters.disk import DiskObjectStore

async def endless():
    yield b"x" * 3_000_000
    print("written", flush=True)
    await asyncio.Event().wait()

async def main():
    store = DiskObjectStore(Path(sys.argv[1]))
    await store.start()
    await store.put("default/files/file-ab12/content", endless())

asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskObjectStore]:
    made = DiskObjectStore(tmp_path / "objects", threads=2)
    await made.start()
    yield made
    await made.aclose()


async def some(data: bytes = b"x") -> AsyncIterator[bytes]:
    yield data


def files_below(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../outside",
        "default/../../outside",
        "default/./content",
        "default//content",
        "default/",
        "default\\..\\outside",
        "default/\0",
        "default/\n",
        "default/a b",
        "default/é",
        f"{WRITING}/file",
    ],
)
async def test_a_key_never_leads_out_of_the_folder(store, tmp_path, key):
    """Nor to where files are written."""
    (tmp_path / "outside").write_text("precious")
    with pytest.raises(ValueError):
        await store.put(key, some())
    with pytest.raises(ValueError):
        [block async for block in store.read(key)]
    with pytest.raises(ValueError):
        await store.size(key)
    with pytest.raises(ValueError):
        await store.delete([key])
    assert files_below(tmp_path) == ["outside"]


async def test_files_of_a_killed_writer_are_swept(store, tmp_path):
    """They are never seen as objects, and go once they are old enough."""
    folder = tmp_path / "objects"
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"written\n"
    finally:
        writer.kill()
        await writer.wait()
    left = files_below(folder)
    assert [one.partition("/")[0] for one in left] == [WRITING]
    with pytest.raises(ObjectMissing):
        await store.size(KEY)
    assert [one async for one in store.list("")] == []
    assert await store.sweep(60) == 0
    os.utime(folder / left[0], (0, 0))
    assert await store.sweep(60) == 1
    assert files_below(folder) == []


async def test_deleting_takes_empty_folders_along(store, tmp_path):
    """Only empty ones, and never the folder itself."""
    await store.put("default/files/a/content", some())
    await store.put("default/files/b/content", some())
    await store.delete(["default/files/a/content"])
    assert files_below(tmp_path / "objects") == ["default/files/b/content"]
    assert not (tmp_path / "objects/default/files/a").exists()
    await store.delete(["default/files/b/content"])
    assert [one.name for one in (tmp_path / "objects").iterdir()] == [WRITING]
    await store.put(KEY, some())
    assert await store.size(KEY) == 1


async def test_a_folder_that_goes_while_a_file_is_put_there_is_made_again(store, monkeypatch):
    """As when another process deletes the last object in it."""
    replace = Path.replace
    times = 3

    def replace_late(source: Path, target: Path) -> Path:
        nonlocal times
        if times:
            times -= 1
            target.parent.rmdir()
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", replace_late)
    assert await store.put(KEY, some()) == 1
    assert times == 0
    assert await store.size(KEY) == 1


async def test_folders_that_a_deleter_left_are_removed_by_the_next(store, tmp_path):
    """It was killed between two of them."""
    (tmp_path / "objects/default/files").mkdir(parents=True)
    await store.delete([KEY])
    assert [one.name for one in (tmp_path / "objects").iterdir()] == [WRITING]


async def test_a_folder_that_is_a_file_is_said_to_be_unusable(tmp_path):
    """The message names the folder and the setting."""
    (tmp_path / "taken").write_text("")
    store = DiskObjectStore(tmp_path / "taken")
    with pytest.raises(UpstreamError) as raised:
        await store.start()
    assert str(tmp_path / "taken") in raised.value.message
    assert "objects.path" in raised.value.message
    await store.aclose()


async def test_a_key_below_another_is_an_error(store):
    """There is no folder where a file is; nothing is left of the attempt."""
    await store.put("default/files/a", some(b"first"))
    with pytest.raises(UpstreamError):
        await store.put("default/files/a/content", some())
    with pytest.raises(UpstreamError):
        await store.put("default/files", some())
    with pytest.raises(ObjectMissing):
        await store.size("default/files/a/content")
    with pytest.raises(ObjectMissing):
        await store.size("default/files")
    assert await store.size("default/files/a") == 5
    assert await store.sweep(0) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_said_to_be_full(store, tmp_path, monkeypatch):
    """As a server that can't take the request now, and nothing is left of it."""
    begin = store._files.begin

    def begin_on_a_full_disk():
        file = begin()
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        return file

    monkeypatch.setattr(store._files, "begin", begin_on_a_full_disk)
    with pytest.raises(UpstreamUnavailable) as raised:
        await store.put(KEY, some(b"x" * 2_000_000))
    assert "full" in raised.value.message
    assert files_below(tmp_path) == []


async def test_several_processes_share_a_folder(store, tmp_path):
    """What one puts, another reads, lists and deletes."""
    other = DiskObjectStore(tmp_path / "objects")
    await other.start()
    await store.put(KEY, some(b"shared"))
    assert [block async for block in other.read(KEY)] == [b"shared"]
    assert [one.key async for one in other.list("default/")] == [KEY]
    await other.delete([KEY])
    with pytest.raises(ObjectMissing):
        await store.size(KEY)
    await other.aclose()


@pytest.mark.alone
async def test_a_slow_disk_doesnt_hold_the_event_loop(store, monkeypatch):
    """Nor does it hold up who needs another thread."""
    await store.put("default/files/other/content", some())
    sync = os.fsync

    def slow(handle: int) -> None:
        time.sleep(1)
        sync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    started = time.perf_counter()
    writing = asyncio.create_task(store.put(KEY, some()))
    await asyncio.sleep(0.05)
    assert await store.size("default/files/other/content") == 1
    assert time.perf_counter() - started < 0.9
    await writing
    assert time.perf_counter() - started > 1
