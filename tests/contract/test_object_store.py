"""What the application may rely on of any `ObjectStore`, run on every adapter there is.

A new adapter adds its name to ``ADAPTERS`` and passes the same suite.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from adapters.disk import DiskObjectStore
from adapters.disk import store as disk_store
from adapters.minio import MinioObjectStore
from adapters.minio import store as minio_store
from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.ports import ObjectMissing, ObjectStore
from gateway.settings import ObjectSettings

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
KEY = "default/files/file-ab12/content"
ADAPTERS = ("disk", "minio")


@pytest.fixture(params=ADAPTERS)
async def store(request, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made: ObjectStore
    if request.param == "disk":
        made = DiskObjectStore(tmp_path / "objects", threads=4)
    else:
        server = request.getfixturevalue("s3")
        bucket = f"test-{uuid.uuid4().hex}"
        made = MinioObjectStore(ObjectSettings(**server.settings(bucket=bucket, threads=4)))
    await made.start()
    yield made
    await made.aclose()


async def blocks_of(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def pattern(count: int) -> AsyncIterator[bytes]:
    """So many MiB, each filled with its own number."""
    for number in range(count):
        for _ in range(16):
            yield bytes([number % 251]) * (MIB // 16)


async def whole(store: ObjectStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([block async for block in store.read(key, start, end)])


async def keys(store: ObjectStore, prefix: str = "default/") -> list[str]:
    return sorted([one.key async for one in store.list(prefix)])


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def nothing_is_left(store: ObjectStore, key: str = KEY) -> None:
    """No object, no temporary file, no unfinished upload."""
    with pytest.raises(ObjectMissing):
        await store.size(key)
    assert await keys(store) == []
    assert await store.sweep(0) == 0


# Round trips.


@pytest.mark.parametrize("size", [0, 1, 65536, MIB, 5 * MIB, 5 * MIB + 1, 11 * MIB])
async def test_what_is_put_is_read(store, size):
    """Whatever the size: empty, a single part to the byte, several parts."""
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert await store.put(KEY, blocks_of(data)) == size
    assert await store.size(KEY) == size
    assert await whole(store, KEY) == data


async def test_blocks_may_be_of_any_size(store):
    """Empty ones, tiny ones, and one larger than a part."""

    async def uneven() -> AsyncIterator[bytes]:
        yield b""
        yield b"a"
        yield b"b" * (12 * MIB)
        yield b""
        yield b"c"

    assert await store.put(KEY, uneven()) == 12 * MIB + 2
    assert await whole(store, KEY) == b"a" + b"b" * (12 * MIB) + b"c"


async def test_a_large_object_passes_through_in_little_memory(store):
    """96 MiB of unknown length go in and out, in blocks of at most 1 MiB, without being held."""
    await store.put(KEY, pattern(8))
    before = peak = rss_mib()

    async def watched() -> AsyncIterator[bytes]:
        nonlocal peak
        async for block in pattern(96):
            peak = max(peak, rss_mib())
            yield block

    assert await store.put(KEY, watched()) == 96 * MIB
    seen = 0
    async for block in store.read(KEY):
        assert len(block) <= MIB
        assert block[0] == (seen // MIB) % 251
        assert block[-1] == ((seen + len(block) - 1) // MIB) % 251
        seen += len(block)
        peak = max(peak, rss_mib())
    assert seen == 96 * MIB
    assert peak - before < 40


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (0, 10),
        (3, 7),
        (9, 10),
        (4, None),
        (0, None),
        (5, 100),
        (10, None),
        (50, 60),
        (4, 4),
    ],
)
async def test_a_range_is_read(store, start, end):
    """From start up to, not including, end, as with a slice; what lies behind the end is empty."""
    await store.put(KEY, blocks_of(b"0123456789"))
    assert await whole(store, KEY, start, end) == b"0123456789"[start:end]


async def test_a_range_in_a_large_object_is_read(store):
    """Across blocks and parts."""
    await store.put(KEY, pattern(12))
    part = await whole(store, KEY, 4 * MIB + 5, 9 * MIB + 7)
    assert len(part) == 5 * MIB + 2
    assert part[0] == 4
    assert part[-1] == 9


async def test_an_empty_object_has_empty_ranges(store):
    """S3 refuses any range of it."""
    await store.put(KEY, blocks_of(b""))
    assert await whole(store, KEY, 0, 10) == b""


# Missing.


async def test_a_missing_object_is_said_to_be_missing(store):
    """By read, with the first block, by an empty range, and by size; above or below others too."""
    await store.put(KEY, blocks_of(b"x"))
    for missing in ("default/files/file-00/content", "other/content"):
        with pytest.raises(ObjectMissing):
            await store.size(missing)
        for span in ((0, None), (2, 5), (3, 3)):
            with pytest.raises(ObjectMissing):
                await whole(store, missing, *span)


async def test_deleting_is_for_good_and_may_be_done_twice(store):
    """Also in bulk, and together with what isn't there."""
    names = [f"default/files/file-{number}/content" for number in range(5)]
    for name in names:
        await store.put(name, blocks_of(b"x"))
    await store.delete([*names[:4], "default/files/never/content"])
    await store.delete(names[:1])
    await store.delete([])
    assert await keys(store) == names[4:]


async def test_many_are_deleted_and_listed_page_by_page(store, monkeypatch):
    """Pages are of a thousand; these are smaller, so that there are several."""
    monkeypatch.setattr(disk_store, "PAGE", 7)
    monkeypatch.setattr(minio_store, "PAGE", 7)
    names = sorted(f"default/files/file-{number}/content" for number in range(30))
    await asyncio.gather(*(store.put(name, blocks_of(b"")) for name in names))
    assert await keys(store) == names
    await store.delete([*names, *(f"default/never/{number}" for number in range(20))])
    assert await keys(store) == []


async def test_a_listing_has_what_is_below_a_prefix(store):
    """With sizes and times; a path that merely begins alike is not below it."""
    for name, size in {
        "default/files/a/content": 1,
        "default/files/b/content": 2,
        "default/files2/c/content": 3,
        "default/stores/d": 4,
        "other/files/e": 5,
    }.items():
        await store.put(name, blocks_of(b"x" * size))
    found = [one async for one in store.list("default/files/")]
    assert sorted((one.key, one.size) for one in found) == [
        ("default/files/a/content", 1),
        ("default/files/b/content", 2),
    ]
    assert all(abs(one.modified - time.time()) < 60 for one in found)
    assert len(await keys(store, "default/")) == 4
    assert len(await keys(store, "")) == 5
    assert await keys(store, "nowhere/") == []


# Whole or not at all.


async def test_the_old_object_is_read_until_the_new_one_is_whole(store):
    """An overwrite that takes its time."""
    await store.put(KEY, blocks_of(b"old"))
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"n" * (6 * MIB)
        await go_on.wait()
        yield b"n" * (6 * MIB)

    writing = asyncio.create_task(store.put(KEY, slow()))
    for _ in range(5):
        await asyncio.sleep(0.05)
        assert await whole(store, KEY) == b"old"
    go_on.set()
    assert await writing == 12 * MIB
    assert await whole(store, KEY) == b"n" * (12 * MIB)


@pytest.mark.parametrize("sent", [0, 1000, 6 * MIB, 12 * MIB])
async def test_a_source_that_fails_leaves_nothing(store, sent):
    """Its exception arrives unchanged, whatever had gone up."""

    class SourceError(Exception):
        pass

    failure = SourceError("the caller has left")

    async def failing() -> AsyncIterator[bytes]:
        if sent:
            yield b"x" * sent
        raise failure

    with pytest.raises(SourceError) as raised:
        await store.put(KEY, failing())
    assert raised.value is failure
    await nothing_is_left(store)


async def test_a_source_that_fails_leaves_the_old_object(store):
    """An overwrite that is given up."""
    await store.put(KEY, blocks_of(b"old"))

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        raise ValueError

    with pytest.raises(ValueError):
        await store.put(KEY, failing())
    assert await whole(store, KEY) == b"old"
    assert await store.sweep(0) == 0


@pytest.mark.parametrize("sent", [0, 1000, 12 * MIB])
async def test_a_put_that_is_cancelled_leaves_nothing(store, sent):
    """While it waits for its source."""
    waits = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        if sent:
            yield b"x" * sent
        waits.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(store.put(KEY, endless()))
    await waits.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await nothing_is_left(store)


async def test_a_put_may_be_cancelled_at_any_moment(store):
    """In the middle of a call as well: afterwards the object is whole or not there, and no part."""
    started = time.perf_counter()
    await store.put(KEY, pattern(11))
    takes = time.perf_counter() - started
    for step in range(16):
        key = f"default/files/file-{step}/content"
        writing = asyncio.create_task(store.put(key, pattern(11)))
        await asyncio.sleep(takes * step / 15)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        try:
            assert await store.size(key) == 11 * MIB
        except ObjectMissing:
            assert writing.cancelled()
        assert await store.sweep(0) == 0


async def test_writers_of_one_key_dont_mix(store):
    """Each reader meets one writer's bytes, whole; this S3 server, which knows no versions, may
    tell it in the middle that they are gone."""
    passes = UpstreamUnavailable if isinstance(store, MinioObjectStore) else ()
    await store.put(KEY, blocks_of(b"\xff" * (6 * MIB)))
    writers = [
        asyncio.create_task(store.put(KEY, blocks_of(bytes([number]) * (6 * MIB), MIB)))
        for number in range(6)
    ]
    while not all(writer.done() for writer in writers):
        try:
            data = await whole(store, KEY)
        except passes:
            continue
        assert len(data) == 6 * MIB
        assert data == data[:1] * len(data)
    await asyncio.gather(*writers)
    data = await whole(store, KEY)
    assert data == data[:1] * (6 * MIB)
    assert await store.sweep(0) == 0


async def test_objects_come_and_go_beside_each_other(store):
    """Deleting the last object of a folder doesn't hinder one that is just being put there."""

    async def churn(number: int) -> None:
        for _ in range(10):
            key = f"default/files/shared/part-{number}"
            await store.put(key, blocks_of(b"x" * 100))
            assert await store.size(key) == 100
            await store.delete([key])

    await asyncio.gather(*(churn(number) for number in range(8)))
    assert await keys(store) == []


# Sweeping, and ending.


async def test_sweeping_leaves_what_is_young_or_whole(store):
    """A write in progress isn't swept before its time; a finished object never."""
    await store.put("default/files/done/content", blocks_of(b"x"))
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        waits.set()
        await go_on.wait()

    writing = asyncio.create_task(store.put(KEY, slow()))
    await waits.wait()
    assert await store.sweep(3600) == 0
    go_on.set()
    assert await writing == 12 * MIB
    assert await store.sweep(0) == 0
    assert await keys(store) == ["default/files/done/content", KEY]


async def test_a_write_that_was_swept_away_fails(store):
    """It says so, and stores nothing."""
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        waits.set()
        await go_on.wait()
        yield b"y"

    writing = asyncio.create_task(store.put(KEY, slow()))
    await waits.wait()
    assert await store.sweep(0) == 1
    go_on.set()
    with pytest.raises(UpstreamError):
        await writing
    await nothing_is_left(store)


async def test_readers_that_stop_early_cost_nothing(store):
    """More of them than there are threads, and then all still works."""
    await store.put(KEY, pattern(8))
    for _ in range(20):
        async with aclosing(store.read(KEY)) as blocks:
            assert await anext(blocks)
    assert len(await whole(store, KEY)) == 8 * MIB


async def test_slow_readers_and_writers_dont_hold_up_others(store):
    """More of either than there are threads, and a call in between."""
    await store.put(KEY, pattern(8))
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await go_on.wait()

    readers = [store.read(KEY) for _ in range(8)]
    for reader in readers:
        await anext(reader)
    writers = [asyncio.create_task(store.put(f"default/w/{n}", slow())) for n in range(8)]
    async with asyncio.timeout(20):
        assert await store.size(KEY) == 8 * MIB
        await store.put("default/quick", blocks_of(b"x"))
    go_on.set()
    await asyncio.gather(*writers)
    for reader in readers:
        await reader.aclose()


async def test_a_reader_may_be_cancelled(store):
    """At any moment, and the store goes on working."""
    await store.put(KEY, pattern(24))
    for step in range(10):
        reading = asyncio.create_task(whole(store, KEY))
        await asyncio.sleep(step * 0.004)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert len(await whole(store, KEY)) == 24 * MIB


async def test_starting_twice_and_beside_others_is_fine(store):
    """Several replicas start at once."""
    await asyncio.gather(*(store.start() for _ in range(4)))
    await store.put(KEY, blocks_of(b"x"))
    await store.start()
    assert await whole(store, KEY) == b"x"
