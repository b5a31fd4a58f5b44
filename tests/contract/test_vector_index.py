"""What the application may rely on of any `VectorIndex`, run on every adapter there is.

Milvus counts four times: Milvus Lite and a real server, a collection for each store and one for
all of them. How Lite's process survives is in `tests/promises/test_lite_survives.py`, what can
happen on the way to a server in `tests/real/test_milvus_faults.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.milvus import MilvusIndex
from gateway.errors import InvalidRequest, UpstreamError
from gateway.ports import IndexedChunk, StoreIndex, VectorIndex
from gateway.settings import VectorSettings

pytestmark = pytest.mark.anyio

DIMENSION = 8
KINDS = ["lite-per_store", "lite-shared", "server-per_store", "server-shared"]


@pytest.fixture(scope="module", params=KINDS)
async def index(request, tmp_path_factory) -> AsyncIterator[VectorIndex]:
    """One for all tests of an adapter: each test has stores of its own."""
    where, _, layout = request.param.partition("-")
    uri = request.getfixturevalue("milvus_server") if where == "server" else None
    folder = tmp_path_factory.mktemp("vectors")
    made = MilvusIndex(VectorSettings(uri=uri, layout=layout, timeout_seconds=60), folder)
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
async def words(index) -> bool:
    """Whether this one searches words."""
    return (await index.features()).keyword


@pytest.fixture(scope="module")
async def spare(index) -> AsyncIterator[list[StoreIndex]]:
    """Stores made at once, because a server takes seconds for each."""
    stores = [new_store() for _ in range(9)]
    await asyncio.gather(*(index.create(store) for store in stores))
    yield stores
    await asyncio.gather(*(index.drop(store) for store in stores))


@pytest.fixture
def store(spare) -> StoreIndex:
    """An empty store."""
    return spare.pop()


def new_store(*, keyword: bool = False) -> StoreIndex:
    return StoreIndex(
        project="default",
        store_id=f"vs_{uuid.uuid4().hex[:20]}",
        dimension=DIMENSION,
        keyword=keyword,
    )


def unit(direction: int) -> list[float]:
    return [1.0 if place == direction % DIMENSION else 0.0 for place in range(DIMENSION)]


def at_angle(degrees: float) -> list[float]:
    """A vector with this angle to `unit(0)`."""
    angle = math.radians(degrees)
    return [math.cos(angle), math.sin(angle), *[0.0] * (DIMENSION - 2)]


def chunk(name: str, attachment: str = "file-1", vector=None, text: str = "") -> IndexedChunk:
    return IndexedChunk(
        id=name, attachment_id=attachment, text=text or name, vector=vector or unit(0)
    )


def many(count: int, attachment: str, seed: int = 0) -> list[IndexedChunk]:
    chance = random.Random(seed)
    return [
        chunk(
            f"{attachment}-{number}",
            attachment,
            [chance.uniform(-1, 1) for _ in range(DIMENSION)],
        )
        for number in range(count)
    ]


async def found(index, store, limit: int = 1000, within=None, vector=None) -> list[str]:
    hits = await index.search(store, vector or unit(0), limit, within)
    return [hit.id for hit in hits]


async def test_it_says_what_it_is(index):
    """For people, and whether words can be searched."""
    features = await index.features()
    assert features.engine.startswith("Milvus")
    assert features.keyword == ("Lite" in features.engine)
    assert await index.features() == features


async def test_a_store_is_made_once(index, store):
    """Making it again, also at once, changes nothing that is in it."""
    await index.upsert(store, [chunk("a")])
    await asyncio.gather(*(index.create(store) for _ in range(4)))
    await index.settle(store)
    assert await found(index, store) == ["a"]


async def test_nearest_comes_first_with_its_cosine(index, store):
    """Whatever the vectors' lengths."""
    angles = {"same": 0, "near": 30, "right": 90, "far": 120, "opposite": 180}
    vectors = {name: [3 * x for x in at_angle(angle)] for name, angle in angles.items()}
    await index.upsert(store, [chunk(name, vector=vector) for name, vector in vectors.items()])
    await index.settle(store)
    hits = await index.search(store, unit(0), 10)
    assert [hit.id for hit in hits] == list(angles)
    for hit in hits:
        assert hit.score == pytest.approx(math.cos(math.radians(angles[hit.id])), abs=1e-4)
        assert -1 <= hit.score <= 1
    assert await found(index, store, limit=2) == ["same", "near"]
    vectors_back = await index.vectors(store, ["near", "opposite", "nobody"])
    assert vectors_back == {
        name: pytest.approx(vectors[name], abs=1e-5) for name in ("near", "opposite")
    }
    assert await index.vectors(store, []) == {}


async def test_a_chunk_is_replaced(index, store):
    """One id, one chunk: also twice in one batch, and under another attachment."""
    await index.upsert(store, [chunk("a", vector=unit(0)), chunk("a", vector=unit(1))])
    await index.settle(store)
    assert await index.vectors(store, ["a"]) == {"a": unit(1)}
    await index.upsert(store, [chunk("a", "file-2", unit(2))])
    await index.settle(store)
    hits = await index.search(store, unit(2), 10)
    assert [(hit.id, round(hit.score, 4)) for hit in hits] == [("a", 1.0)]
    assert await index.attachments(store) == {"file-2"}
    await index.upsert(store, [])


async def test_a_search_keeps_within_attachments(index, store):
    """None is no limit, an empty list finds nothing, and any number of ids will do."""
    for file in range(5):
        await index.upsert(store, many(40, f"file-{file}", seed=file))
    await index.settle(store)
    assert len(await found(index, store)) == 200
    assert await found(index, store, within=[]) == []
    for within in (["file-3"], ["file-1", "file-4", "file-1"], ["nobody", "file-0"]):
        names = await found(index, store, within=within)
        assert {name.rpartition("-")[0] for name in names} == set(within) - {"nobody"}
        assert len(names) == len(set(names)) == 40 * len(set(within) - {"nobody"})
    strangers = [f"stranger-{number}" for number in range(2500)]
    everyone = await found(index, store, limit=30, within=[*strangers, "file-2"])
    assert everyone == await found(index, store, limit=30, within=["file-2"])
    crowd = [f"stranger-{number}" for number in range(21_000)]
    crowd[5], crowd[20_000] = "file-1", "file-2"
    merged = await index.search(store, unit(0), 50, crowd)
    plain = await index.search(store, unit(0), 50, ["file-1", "file-2"])
    assert [hit.id for hit in merged] == [hit.id for hit in plain]
    assert await found(index, store, within=["stranger"]) == []


async def test_an_attachment_is_deleted(index, store):
    """All its chunks and nobody else's, also right after they were written, and again."""
    await index.upsert(store, many(60, "file-1"))
    await index.upsert(store, many(3, "file-2"))
    await index.delete(store, "file-1")
    await index.settle(store)
    assert sorted(await found(index, store)) == ["file-2-0", "file-2-1", "file-2-2"]
    assert await index.vectors(store, ["file-1-7"]) == {}
    assert await index.attachments(store) == {"file-2"}
    await index.delete(store, "file-1")
    await index.delete(store, "nobody")
    await index.upsert(store, many(1, "file-1"))
    await index.settle(store)
    assert len(await found(index, store)) == 4


async def test_what_is_settled_is_found(index, store):
    """Every search that begins after it returns, round after round."""
    for done in range(12):
        await index.upsert(store, many(7, f"file-{done}", seed=done))
        await index.settle(store)
        assert len(await found(index, store)) == 7 * (done + 1)


async def test_writers_at_once_lose_nothing(index, store):
    """Deletes, writes and settling of many files at the same time, and searches beside them."""

    async def file(number: int, round_: int) -> None:
        await index.delete(store, f"file-{number}")
        await index.upsert(store, many(25, f"file-{number}", seed=round_))
        await index.settle(store)

    async def search(until: asyncio.Event) -> None:
        while not until.is_set():
            await index.search(store, unit(0), 10)
            await asyncio.sleep(0.01)

    done = asyncio.Event()
    searching = asyncio.create_task(search(done))
    for round_ in range(8):
        await asyncio.gather(*(file(number, round_) for number in range(10)))
        names = await found(index, store)
        assert len(names) == len(set(names)) == 250
    done.set()
    await searching
    assert await index.attachments(store) == {f"file-{number}" for number in range(10)}


async def test_any_text_and_any_id(index, store):
    """Quotes, backslashes and signs of the query language are only text."""
    odd = ["'", '"', "\\", '" or id != "', "%_", "a b", "{x}", "\\n", "]", "--", "$meta"]
    texts = ["naïve 東京 \U0001f600", "\0\t\r\n", "\ud800 half", "x" * 70_000, "é" * 40_000, ""]
    chunks = [
        chunk(f"id{name}", f"of{name}", text=text)
        for name, text in zip(odd, itertools.cycle(texts), strict=False)
    ]
    await index.upsert(store, chunks)
    await index.settle(store)
    assert sorted(await found(index, store)) == sorted(one.id for one in chunks)
    for one in chunks:
        assert await found(index, store, within=[one.attachment_id]) == [one.id]
    assert set(await index.vectors(store, [one.id for one in chunks])) == {x.id for x in chunks}
    assert await index.attachments(store) == {one.attachment_id for one in chunks}
    await index.delete(store, 'of"')
    await index.settle(store)
    assert sorted(await found(index, store)) == sorted(x.id for x in chunks if x.id != 'id"')


async def test_stores_are_apart(index):
    """The same ids in another store or project are other chunks; dropping one leaves the rest."""
    one = new_store()
    other = new_store()
    elsewhere = StoreIndex(
        project="pröject/2", store_id=one.store_id, dimension=DIMENSION, keyword=False
    )
    odd = StoreIndex(
        project="default", store_id=f"vs_{uuid.uuid4()}__x", dimension=DIMENSION, keyword=False
    )
    stores = [one, other, elsewhere, odd]
    await asyncio.gather(*(index.create(store) for store in stores))
    for number, store in enumerate(stores):
        await index.upsert(store, [chunk("same", "file", unit(number)), chunk(f"own-{number}")])
        await index.settle(store)
    for number, store in enumerate(stores):
        assert sorted(await found(index, store)) == [f"own-{number}", "same"]
        assert await index.vectors(store, ["same", "own-0"]) == {
            "same": unit(number),
            **({"own-0": unit(0)} if number == 0 else {}),
        }
    assert {store.store_id for store in stores} <= await index.stores()
    await index.delete(one, "file")
    await index.settle(one)
    assert await found(index, one) == ["own-0"]
    for store in (one, odd):
        await index.drop(store)
        await index.drop(store)
    for store in (other, elsewhere):
        await index.settle(store)
        assert len(await found(index, store)) == 2
    await index.drop(other)
    await index.drop(elsewhere)
    deadline = time.monotonic() + 30
    while {store.store_id for store in stores} & await index.stores():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_what_is_not_there_is_empty_or_said(index):
    """Removing and listing are idempotent; writing and searching say what is wrong."""
    gone = StoreIndex(project="default", store_id="vs_gone", dimension=13, keyword=False)
    await index.drop(gone)
    await index.delete(gone, "file-1")
    assert await index.attachments(gone) == set()
    assert await index.vectors(gone, ["a"]) == {}
    assert "vs_gone" not in await index.stores()
    for call in (
        index.search(gone, [1.0] * 13, 5),
        index.upsert(gone, [chunk("a", vector=[1.0] * 13)]),
        index.settle(gone),
    ):
        with pytest.raises(UpstreamError, match="missing"):
            await call


@pytest.mark.parametrize("limit", [0, -1, 16_385])
async def test_a_search_has_bounds(index, store_of_one, limit):
    """One to 16,384 results, whatever the server."""
    with pytest.raises(InvalidRequest, match="16,384"):
        await index.search(store_of_one, unit(0), limit)
    assert await found(index, store_of_one, limit=16_384) == ["a"]


async def test_vectors_must_fit(index, store_of_one):
    """Of another length than the store's: the caller's mistake, said as such."""
    with pytest.raises(InvalidRequest, match="dimensions"):
        await index.search(store_of_one, [1.0], 5)
    with pytest.raises(InvalidRequest, match="dimensions"):
        await index.upsert(store_of_one, [chunk("b", vector=[1.0])])
    with pytest.raises(InvalidRequest, match="dimensions"):
        await index.create(
            StoreIndex(project="p", store_id="vs_wide", dimension=40_000, keyword=False)
        )


async def test_words_are_found_by_bm25(index, words):
    """Best first, above 0, within attachments; where there is none, it says who has it."""
    store = new_store(keyword=True)
    if not words:
        for call in (index.create(store), index.search_text(store, "apple", 5)):
            with pytest.raises(InvalidRequest, match=r"Milvus 2\.3.* has no full-text.*2\.5"):
                await call
        return
    await index.create(store)
    texts = {
        "both": "apple pie with apple sauce",
        "one": "an apple a day keeps the doctor away, they say, all of them",
        "none": "pears and plums",
        "odd": "naïve Größe 'quoted' \"text\"",
        "long": "word " * 30_000,
        "han": "每位员工每年有二十八天假期。",
    }
    await index.upsert(
        store, [chunk(name, f"file-{name}", text=text) for name, text in texts.items()]
    )
    for _ in range(2):  # before and after settling
        hits = await index.search_text(store, "apple pie", 10)
        assert [hit.id for hit in hits] == ["both", "one"]
        assert hits[0].score > hits[1].score > 0
        await index.settle(store)
    assert [hit.id for hit in await index.search_text(store, "apple", 1)] == ["both"]
    assert [hit.id for hit in await index.search_text(store, "GRÖSSE größe", 5)] == ["odd"]
    assert [hit.id for hit in await index.search_text(store, "员工", 5)] == ["han"]
    within = [f"stranger-{number}" for number in range(12_000)]
    hits = await index.search_text(store, "apple pears", 5, [*within, "file-one", "file-none"])
    assert {hit.id for hit in hits} == {"one", "none"}
    assert hits[0].score >= hits[1].score
    assert await index.search_text(store, "apple", 5, []) == []
    assert await index.search_text(store, "zebra", 5) == []
    assert await index.search_text(store, "\" ' \\ %", 5) == []
    assert len(await index.search(store, unit(0), 10)) == 6
    await index.drop(store)


async def test_a_store_without_words_says_so(index, words, store_of_one):
    """Though the server could have made it with them."""
    with pytest.raises(InvalidRequest, match="full-text search"):
        await index.search_text(store_of_one, "apple", 5)


@pytest.mark.alone
async def test_the_loop_is_never_blocked(index, store):
    """Packing rows, writing, settling and searching happen beside the event loop."""
    step = 0.005
    ticks, running = 0, True

    async def tick() -> None:
        nonlocal ticks
        while running:
            await asyncio.sleep(step)
            ticks += 1

    ticking = asyncio.create_task(tick())
    shares = []
    for _ in range(3):  # the machine may be busy with other things
        ticks, began = 0, time.perf_counter()
        await index.upsert(store, many(2000, "file"))
        await index.settle(store)
        await found(index, store)
        shares.append(ticks * step / (time.perf_counter() - began))
    running = False
    await ticking
    assert max(shares) > 0.25


@pytest.fixture(scope="module")
async def store_of_one(index) -> StoreIndex:
    """A store with the chunk `a` in it, to be read only."""
    made = new_store()
    await index.create(made)
    await index.upsert(made, [chunk("a")])
    await index.settle(made)
    return made


async def test_an_unused_index_does_nothing(tmp_path: Path):
    """Nothing is started, made or connected before the first call."""
    folder = tmp_path / "data"
    unused = MilvusIndex(VectorSettings(), folder)
    assert not folder.exists()
    await unused.aclose()
    with pytest.raises(UpstreamError):
        await unused.features()
    assert not folder.exists()
