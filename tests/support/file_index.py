"""A vector index in a file, which survives its process and may be shared by several."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.ports import Hit, IndexedChunk, IndexFeatures, StoreIndex


class FileVectorIndex:
    """Exact cosine. What was answered is there, whatever happens to the process then."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, timeout=30)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE IF NOT EXISTS stores (store PRIMARY KEY)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS chunks"
            " (store, id, attachment, text, vector, PRIMARY KEY (store, id))"
        )

    async def features(self) -> IndexFeatures:
        return IndexFeatures(engine="File 1.0", keyword=False)

    async def create(self, store: StoreIndex) -> None:
        self._connection.execute("INSERT OR IGNORE INTO stores VALUES (?)", (store.store_id,))

    async def drop(self, store: StoreIndex) -> None:
        self._connection.execute("DELETE FROM chunks WHERE store = ?", (store.store_id,))
        self._connection.execute("DELETE FROM stores WHERE store = ?", (store.store_id,))

    async def upsert(self, store: StoreIndex, chunks: Sequence[IndexedChunk]) -> None:
        for one in chunks:  # one by one, so that a kill may fall between two of them
            self._connection.execute(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)",
                (store.store_id, one.id, one.attachment_id, one.text, json.dumps([*one.vector])),
            )

    async def delete(self, store: StoreIndex, attachment_id: str) -> None:
        self._connection.execute(
            "DELETE FROM chunks WHERE store = ? AND attachment = ?",
            (store.store_id, attachment_id),
        )

    async def settle(self, store: StoreIndex) -> None:
        """Everything is settled at once."""

    async def search(
        self,
        store: StoreIndex,
        vector: Sequence[float],
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        rows = self._connection.execute(
            "SELECT id, attachment, vector FROM chunks WHERE store = ?", (store.store_id,)
        )
        hits = [
            Hit(id=id_, score=_cosine(vector, json.loads(one)))
            for id_, attachment, one in rows
            if within is None or attachment in within
        ]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    async def search_text(
        self,
        store: StoreIndex,
        query: str,
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        raise NotImplementedError

    async def vectors(self, store: StoreIndex, ids: Sequence[str]) -> dict[str, list[float]]:
        marks = ",".join("?" * len(ids))
        rows = self._connection.execute(
            f"SELECT id, vector FROM chunks WHERE store = ? AND id IN ({marks})",
            (store.store_id, *ids),
        )
        return {id_: json.loads(vector) for id_, vector in rows}

    async def attachments(self, store: StoreIndex) -> set[str]:
        rows = self._connection.execute(
            "SELECT DISTINCT attachment FROM chunks WHERE store = ?", (store.store_id,)
        )
        return {attachment for (attachment,) in rows}

    async def stores(self) -> set[str]:
        return {store for (store,) in self._connection.execute("SELECT store FROM stores")}

    async def aclose(self) -> None:
        self._connection.close()

    def texts(self, store: StoreIndex) -> dict[str, str]:
        """By the id of the chunk, what is searched in."""
        rows = self._connection.execute(
            "SELECT id, text FROM chunks WHERE store = ?", (store.store_id,)
        )
        return dict(rows.fetchall())


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
