"""What the adapter adds to a search on a real Milvus server.

    python -m tests.real.milvus.latency [--chunks 100000] [--uri http://…]

Searches by the client itself and by the adapter take turns, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop
from pymilvus import AsyncMilvusClient, MilvusClient

from adapters.milvus import MilvusIndex
from gateway.ports import IndexedChunk, StoreIndex
from gateway.settings import VectorSettings
from tests.real.milvus.server import MilvusServer

DIMENSION = 384
BATCH = 250


async def fill(index: MilvusIndex, store: StoreIndex, count: int) -> None:
    numbers = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        vectors = numbers.normal(size=(BATCH, DIMENSION)).astype(np.float32).tolist()
        await index.upsert(
            store,
            [
                IndexedChunk(
                    id=f"c{start + place}",
                    attachment_id=f"f{(start + place) // 100}",
                    text="",
                    vector=vector,
                )
                for place, vector in enumerate(vectors)
            ],
        )
    await index.settle(store)


def query() -> list[float]:
    return [random.gauss(0, 1) for _ in range(DIMENSION)]


def line(name: str, seconds: list[float]) -> str:
    ordered = sorted(1000 * one for one in seconds)
    middle = statistics.median(ordered)
    return f"{name:28} p50 {middle:6.2f}  p95 {ordered[int(0.95 * len(ordered))]:6.2f} ms"


async def measure(uri: str, count: int, rounds: int) -> None:
    store = StoreIndex(project="bench", store_id="vs_bench", dimension=DIMENSION, keyword=False)
    index = MilvusIndex(VectorSettings(uri=uri, timeout_seconds=120), Path(tempfile.mkdtemp()))
    await index.create(store)
    began = time.monotonic()
    await fill(index, store, count)
    print(f"{count} chunks written in {time.monotonic() - began:.1f} s", flush=True)
    client = MilvusClient(uri, dedicated=True)
    other = AsyncMilvusClient(uri)
    (name,) = [name for name in client.list_collections() if name.endswith("vs_bench")]
    arguments = {
        "anns_field": "vector",
        "limit": 10,
        "output_fields": ["id"],
        "consistency_level": "Bounded",
    }
    took: dict[str, list[float]] = {"pymilvus": [], "pymilvus async": [], "adapter": []}
    within = [f"f{number}" for number in range(100)]
    took |= {"pymilvus, in 100": [], "adapter, in 100": []}
    quoted = ",".join(f'"{one}"' for one in within)
    expression = f"attachment in [{quoted}]"

    def raw(vector: list[float], **more: str) -> None:
        client.search(name, data=[vector], **arguments, **more)

    for _ in range(rounds):
        vector = query()
        ways = [
            ("pymilvus", lambda v=vector: raw(v)),
            ("pymilvus async", lambda v=vector: other.search(name, data=[v], **arguments)),
            ("adapter", lambda v=vector: index.search(store, v, 10)),
            ("pymilvus, in 100", lambda v=vector: raw(v, filter=expression)),
            ("adapter, in 100", lambda v=vector: index.search(store, v, 10, within)),
        ]
        random.shuffle(ways)
        for way, call in ways:
            started = time.perf_counter()
            if (pending := call()) is not None:
                await pending
            took[way].append(time.perf_counter() - started)
    for way, seconds in took.items():
        print(line(way, seconds), flush=True)

    async def one() -> float:
        started = time.perf_counter()
        await index.search(store, query(), 10)
        return time.perf_counter() - started

    async def two() -> float:
        started = time.perf_counter()
        await other.search(name, data=[query()], **arguments)
        return time.perf_counter() - started

    for name_of, many in (("adapter", one), ("pymilvus async", two)):
        lag = asyncio.create_task(lags())
        started = time.perf_counter()
        seconds = []
        for _ in range(10):
            seconds += await asyncio.gather(*(many() for _ in range(32)))
        rate = len(seconds) / (time.perf_counter() - started)
        lag.cancel()
        print(
            line(f"{name_of}, 32 at once", seconds), f" {rate:.0f}/s  lag {1000 * WORST[0]:.0f} ms"
        )
    await other.close()
    client.close()
    await index.drop(store)
    await index.aclose()


WORST = [0.0]


async def lags() -> None:
    """The longest time that the event loop was held."""
    WORST[0] = 0.0
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        WORST[0] = max(WORST[0], time.perf_counter() - before - 0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--uri", help="of a server that runs; one is started when left out")
    asked = parser.parse_args()
    if asked.uri:
        uvloop.run(measure(asked.uri, asked.chunks, asked.rounds))
        return
    with MilvusServer() as server:
        uvloop.run(measure(server.uri, asked.chunks, asked.rounds))


if __name__ == "__main__":
    main()
