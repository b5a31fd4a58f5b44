"""Ports kept in memory, for tests of what stands above them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from gateway.errors import InvalidRequest
from gateway.ports import (
    Hit,
    IndexedChunk,
    IndexFeatures,
    ObjectMissing,
    StoredObject,
    StoreIndex,
)

BLOCK_BYTES = 1024 * 1024


class MemoryObjectStore:
    """`objects` is what it holds; every call raises `failure` where one is set."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self._modified: dict[str, float] = {}

    async def start(self) -> None:
        self._check()

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> int:
        content = bytearray()
        async for block in blocks:
            self._check()
            content += block
        self._check()
        self.objects[key] = bytes(content)
        self._modified[key] = time.time()
        return len(content)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        content = self._found(key)[start:end]
        for position in range(0, len(content), BLOCK_BYTES):
            yield content[position : position + BLOCK_BYTES]

    async def size(self, key: str) -> int:
        return len(self._found(key))

    async def delete(self, keys: Sequence[str]) -> None:
        self._check()
        for key in keys:
            self.objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        self._check()
        for key, content in [*self.objects.items()]:
            if key.startswith(prefix):
                yield StoredObject(key=key, size=len(content), modified=self._modified[key])

    async def sweep(self, older_than_seconds: float) -> int:
        return 0

    async def aclose(self) -> None:
        """Nothing is open."""

    def _found(self, key: str) -> bytes:
        self._check()
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissing(key) from None

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryVectorIndex:
    """Exact cosine, and BM25 over whole words in lower case.

    `calls` tells what was asked, as (method, limit, within); `failure` is raised by every search;
    `keyword=False` is a server without full-text search.
    """

    def __init__(self, *, keyword: bool = True) -> None:
        self.keyword = keyword
        self.failure: Exception | None = None
        self.calls: list[tuple[str, int, tuple[str, ...] | None]] = []
        self.chunks: dict[str, dict[str, IndexedChunk]] = {}

    async def features(self) -> IndexFeatures:
        return IndexFeatures(engine="Memory 1.0", keyword=self.keyword)

    async def create(self, store: StoreIndex) -> None:
        self.chunks.setdefault(store.store_id, {})

    async def drop(self, store: StoreIndex) -> None:
        self.chunks.pop(store.store_id, None)

    async def upsert(self, store: StoreIndex, chunks: Sequence[IndexedChunk]) -> None:
        await self.create(store)
        self.chunks[store.store_id].update({chunk.id: chunk for chunk in chunks})

    async def delete(self, store: StoreIndex, attachment_id: str) -> None:
        kept = self.chunks.get(store.store_id, {})
        for chunk in [one for one in kept.values() if one.attachment_id == attachment_id]:
            del kept[chunk.id]

    async def settle(self, store: StoreIndex) -> None:
        """Everything is settled at once."""

    async def search(
        self,
        store: StoreIndex,
        vector: Sequence[float],
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        found = self._asked("search", store, limit, within)
        return _best({chunk.id: _cosine(vector, chunk.vector) for chunk in found}, limit)

    async def search_text(
        self,
        store: StoreIndex,
        query: str,
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        found = self._asked("search_text", store, limit, within)
        if not (self.keyword and store.keyword):
            raise InvalidRequest("This server has no full-text search.")
        everything = [_words(one.text) for one in self.chunks[store.store_id].values()]
        scores = {chunk.id: _bm25(_words(query), _words(chunk.text), everything) for chunk in found}
        return _best({id_: score for id_, score in scores.items() if score > 0}, limit)

    async def vectors(self, store: StoreIndex, ids: Sequence[str]) -> dict[str, list[float]]:
        kept = self.chunks.get(store.store_id, {})
        return {id_: list(kept[id_].vector) for id_ in ids if id_ in kept}

    async def attachments(self, store: StoreIndex) -> set[str]:
        return {chunk.attachment_id for chunk in self.chunks.get(store.store_id, {}).values()}

    async def stores(self) -> set[str]:
        return set(self.chunks)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _asked(
        self, method: str, store: StoreIndex, limit: int, within: Sequence[str] | None
    ) -> list[IndexedChunk]:
        self.calls.append((method, limit, None if within is None else tuple(within)))
        if self.failure is not None:
            raise self.failure
        kept = self.chunks.get(store.store_id, {}).values()
        return [one for one in kept if within is None or one.attachment_id in within]


def _best(scores: dict[str, float], limit: int) -> list[Hit]:
    hits = [Hit(id=id_, score=score) for id_, score in scores.items()]
    return sorted(hits, key=lambda hit: -hit.score)[:limit]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _bm25(query: list[str], text: list[str], everything: list[list[str]]) -> float:
    counts, usual = Counter(text), sum(map(len, everything)) / len(everything)
    score = 0.0
    for word in set(query):
        having = sum(word in one for one in everything)
        rarity = math.log(1 + (len(everything) - having + 0.5) / (having + 0.5))
        often = counts[word]
        score += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(text) / usual))
    return score
