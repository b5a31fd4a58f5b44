"""What the gateway adds to a search over 100,000 chunks, and where its time goes.

    python -m tests.benchmarks.search_latency              # SQLite, an instant index
    python -m tests.benchmarks.search_latency --database postgresql
    python -m tests.benchmarks.search_latency --milvus     # a real Milvus server

Requests go through the whole application by ASGI, with tracing on. The embedding model answers at
once. The gateway's own part is the whole time less the calls to the index, request by request, in
milliseconds. CPU is that of the process with all its threads; on a busy machine it is the figure to
trust.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import insert

from gateway.app import Application, create_app
from gateway.database.identifiers import now, sequence
from gateway.database.tables import (
    AttributeRow,
    ChunkRow,
    FileRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.observability.tracing import Tracing
from gateway.ports import Hit, IndexedChunk, IndexFeatures, StoreIndex
from gateway.settings import DatabaseSettings, Settings, VectorSettings

FILES, CHUNKS_EACH, DIMENSION, ROUNDS = 1000, 100, 384, 200
STORE = "vs_bench"
WORDS = ("lamp", "boat", "gull", "rock", "light", "night", "oil", "engine", "fog", "keeper", "tide")
FILTER = {"type": "eq", "key": "language", "value": "en"}
KINDS: dict[str, dict[str, Any]] = {
    "vector": {},
    "vector, 10 of 1,000 files": {"filters": {"type": "lt", "key": "number", "value": 10}},
    "vector, half of the files": {"filters": FILTER},
    "hybrid": {"search_mode": "hybrid"},
    "vector, 50 results": {"max_num_results": 50},
}


class Timed:
    """An index whose time is not the gateway's."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.spent = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def search(self, *arguments: Any) -> list[Hit]:
        return await self._measure(self._index.search(*arguments))

    async def search_text(self, *arguments: Any) -> list[Hit]:
        return await self._measure(self._index.search_text(*arguments))

    async def _measure(self, call: Any) -> list[Hit]:
        started = time.perf_counter()
        try:
            hits: list[Hit] = await call
            return hits
        finally:
            self.spent += time.perf_counter() - started


class InstantIndex:
    """Answers any chunks of the store at once."""

    async def features(self) -> IndexFeatures:
        return IndexFeatures(engine="Instant 1.0", keyword=True)

    async def search(
        self, _: StoreIndex, __: Sequence[float], limit: int, within: Sequence[str] | None = None
    ) -> list[Hit]:
        files = within or [f"vsf_{number}" for number in range(FILES)]
        return [
            Hit(id=f"{random.choice(files)}-{number}", score=0.9 - number / 1000)
            for number in random.sample(range(CHUNKS_EACH), min(limit, CHUNKS_EACH))
        ]

    async def search_text(
        self, where: StoreIndex, _: str, limit: int, within: Sequence[str] | None = None
    ) -> list[Hit]:
        return await self.search(where, (), limit, within)


class InstantEmbedder:
    async def embed(self, _: Any, __: str, texts: Sequence[str]) -> list[Sequence[float]]:
        return [np.random.default_rng().normal(size=DIMENSION).tolist() for _ in texts]


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search_latency")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--milvus", action="store_true", help="with a real Milvus server")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        database = stack.enter_context(_database(chosen.database))
        vectors = VectorSettings(uri=stack.enter_context(_milvus()) if chosen.milvus else None)
        settings = Settings(data_dir=folder, database=database, vectors=vectors)
        provider = TracerProvider()
        processor = BatchSpanProcessor(InMemorySpanExporter())
        application = create_app(settings, Tracing(provider=provider, processors=[processor]))
        await application.state.prepare()
        await _fill(application, fill_index=chosen.milvus)
        await _measure(application, real=chosen.milvus)
        await application.state.index.aclose()
        await application.state.database.aclose()


async def _measure(application: Application, *, real: bool) -> None:
    index = Timed(application.state.index if real else InstantIndex())
    application.stateful.search._index = index  # type: ignore[assignment]
    application.stateful.search._embedder = InstantEmbedder()  # type: ignore[assignment]
    keyword = (await index.features()).keyword
    print("| search | whole p50 | index p50 | gateway p50 | p10 | p95 | CPU, mean |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, more in KINDS.items():
        if "search_mode" in more and not keyword:
            continue
        body = json.dumps({"query": "where is the lamp", **more}).encode()
        whole, inside, cpu = [], [], 0.0
        for number in range(ROUNDS + 50):
            index.spent = 0.0
            started, worked = time.perf_counter(), time.process_time()
            await _post(application, body)
            elapsed = time.perf_counter() - started
            if number >= 50:  # the first ones make connections and fill caches
                whole.append(elapsed * 1000)
                inside.append(index.spent * 1000)
                cpu += (time.process_time() - worked) * 1000
        own = sorted(a - b for a, b in zip(whole, inside, strict=True))
        cells = [
            statistics.median(whole),
            statistics.median(inside),
            statistics.median(own),
            own[int(0.1 * ROUNDS)],
            own[int(0.95 * ROUNDS)],
            cpu / ROUNDS,
        ]
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


async def _post(application: Application, body: bytes) -> None:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/v1/vector_stores/{STORE}/search",
        "raw_path": f"/v1/vector_stores/{STORE}/search".encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await application.public(scope, receive, send)
    if sent[0]["status"] != 200 or not json.loads(sent[1]["body"])["data"]:
        raise SystemExit(f"the search failed: {sent}")


async def _fill(application: Application, *, fill_index: bool) -> None:
    started = time.perf_counter()
    place = {"project": "default", "store_id": STORE}
    keyword = True
    if fill_index:
        keyword = (await application.state.index.features()).keyword
    where = StoreIndex(**place, dimension=DIMENSION, keyword=keyword)
    numbers = np.random.default_rng(0)
    if fill_index:
        await application.state.index.create(where)
    async with application.state.database.begin() as session:
        store = {
            "id": STORE,
            "project": "default",
            "sequence": sequence(),
            "name": "bench",
            "embedding_model": "instant",
            "dimension": DIMENSION,
            "keyword": keyword,
            "provider_id": "milvus",
            "last_active_at": now(),
            "metadata_": {},
        }
        await session.execute(insert(VectorStoreRow).values(**store))
        for number in range(FILES):
            await _file(session, number, place)
    if not fill_index:
        print(f"filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        return
    for number in range(FILES):
        chunks = [
            IndexedChunk(
                id=f"vsf_{number}-{position}",
                attachment_id=f"vsf_{number}",
                text=" ".join(random.choices(WORDS, k=20)),
                vector=numbers.normal(size=DIMENSION).tolist(),
            )
            for position in range(CHUNKS_EACH)
        ]
        await application.state.index.upsert(where, chunks)
    await application.state.index.settle(where)
    print(f"filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)


async def _file(session: Any, number: int, place: dict[str, str]) -> None:
    name = f"handbook-{number}.md"
    await session.execute(
        insert(FileRow).values(
            id=f"file-{number}",
            project="default",
            sequence=sequence(),
            filename=name,
            purpose="assistants",
            bytes=1,
            sha256="0" * 64,
        )
    )
    attributes = {"language": "en" if number % 2 else "de", "number": number}
    await session.execute(
        insert(VectorStoreFileRow).values(
            **place,
            id=f"vsf_{number}",
            sequence=sequence(),
            file_id=f"file-{number}",
            filename=name,
            status="completed",
            attributes=attributes,
            chunking={},
            usage_bytes=1,
            attempt=1,
            tries=1,
            touched_at=0,
        )
    )
    await session.execute(
        insert(AttributeRow),
        [
            {"attachment_id": f"vsf_{number}", "store_id": STORE, "key": key, **value}
            for key, value in (
                ("language", {"text": attributes["language"], "number": None}),
                ("number", {"text": None, "number": float(number)}),
            )
        ],
    )
    await session.execute(
        insert(ChunkRow),
        [
            {
                **place,
                "id": f"vsf_{number}-{position}",
                "attachment_id": f"vsf_{number}",
                "position": position,
                "text": " ".join(random.choices(WORDS, k=400)),
                "digest": "0" * 64,
                "tokens": 500,
                "headings": ["Handbook", f"Part {position}"],
                "pages": [position],
                "metadata_": {},
            }
            for position in range(CHUNKS_EACH)
        ],
    )


@contextlib.contextmanager
def _database(kind: str) -> Iterator[DatabaseSettings]:
    if kind == "sqlite":
        yield DatabaseSettings()
        return
    from tests.support.postgres import PostgresServer

    with PostgresServer() as server:
        yield DatabaseSettings(url=server.create_database())


@contextlib.contextmanager
def _milvus() -> Iterator[str]:
    from tests.real.milvus.server import MilvusServer

    server = MilvusServer()
    try:
        server.start()
        yield server.uri
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
