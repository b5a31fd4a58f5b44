"""The ``VectorIndex`` port over Milvus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.milvus import filters, schema
from adapters.milvus.connection import Call, Connection
from adapters.milvus.errors import CollectionMissing, CollectionNotLoaded
from adapters.milvus.features import features_of, require_keyword
from adapters.milvus.layout import STORE_FIELD, PerStore, Shared, layout_named
from adapters.milvus.words import words_of
from gateway.errors import InvalidRequest, UpstreamError
from gateway.ports import Hit, IndexedChunk, IndexFeatures, StoreIndex
from gateway.settings import VectorSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

__all__ = ["MilvusIndex"]

ResultT = TypeVar("ResultT")

MAX_LIMIT = 16_384
MIN_DIMENSION, MAX_DIMENSION = 2, 32_768
_BATCH_ROWS = 256
_BATCH_VECTORS = 256
_PAGE = 10_000
_SEARCHES_AT_ONCE = 4

_CONSISTENCY = "Bounded"
"""Of searches: what was visible to anyone some seconds ago, without waiting for more. Visible at
once is what ``settle`` makes it, which costs 0.2 seconds for a file and not for each search."""


class MilvusIndex:
    """``settings.uri`` is a server's URL, or a folder for Milvus Lite; left out, Lite's folder is
    ``data_dir/milvus-lite``. Nothing is connected or started before the first call.
    """

    def __init__(self, settings: VectorSettings, data_dir: Path) -> None:
        self._connection = Connection(settings, lite_folder=data_dir / "milvus-lite")
        self._layout = layout_named(settings.layout)
        self._features: tuple[int, IndexFeatures] | None = None
        self._ready: set[str] = set()
        """Shared collections that were there when last asked for."""

    async def features(self) -> IndexFeatures:
        if self._features is None or self._features[0] != self._connection.generation:
            version = await self._connection.read(
                lambda client, left: client.get_server_version(timeout=left)
            )
            self._features = (self._connection.generation, features_of(version))
        return self._features[1]

    # Stores.

    async def create(self, store: StoreIndex) -> None:
        collection = self._layout.collection(store)
        if collection in self._ready:
            return
        if not MIN_DIMENSION <= store.dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"The vector database takes vectors of {MIN_DIMENSION} to {MAX_DIMENSION} "
                f"dimensions, not {store.dimension}."
            )
        if store.keyword:
            require_keyword(await self.features())

        try:
            await self._connection.write(
                lambda client, left: schema.make_room(
                    client, self._layout, store, lite=self._connection.lite, timeout=left
                )
            )
        except CollectionMissing as error:
            raise UpstreamError("The store's index was dropped while it was made.") from error
        if self._layout.shared:
            self._ready.add(collection)

    async def drop(self, store: StoreIndex) -> None:
        collection = self._layout.collection(store)
        if self._layout.shared:
            await self._delete(store, self._layout.scope(store))
            return
        try:
            await self._connection.write(
                lambda client, left: client.drop_collection(collection, timeout=left)
            )
        except CollectionMissing:
            return

    async def stores(self) -> set[str]:
        names = await self._connection.read(
            lambda client, left: client.list_collections(timeout=left)
        )
        if not self._layout.shared:
            return {store for name in names if (store := PerStore.store_of(name)) is not None}
        found: set[str] = set()
        for name in filter(Shared.is_shared, names):
            found |= await self._distinct(name, "", STORE_FIELD)
        return {Shared.store_of(key) for key in found}

    # Chunks.

    async def upsert(self, store: StoreIndex, chunks: Sequence[IndexedChunk]) -> None:
        if any(len(chunk.vector) != store.dimension for chunk in chunks):
            raise InvalidRequest(f"A vector here must have {store.dimension} dimensions.")
        collection = self._layout.collection(store)

        # Before 2.4 an upsert puts rows into the partition of another key than their own.
        replace = self._layout.shared and not self._connection.lite

        def write(batch: Sequence[IndexedChunk], client: MilvusClient, left: float) -> None:
            rows = schema.rows(self._layout, store, batch)
            if replace:
                ids = [row["id"] for row in rows]
                client.delete(collection, filter=filters.any_of("id", ids), timeout=left)
                client.insert(collection, rows, timeout=left)
            else:
                client.upsert(collection, rows, timeout=left)

        for start in range(0, len(chunks), _BATCH_ROWS):
            batch = chunks[start : start + _BATCH_ROWS]
            await self._loaded(collection, partial(write, batch), write=True)

    async def delete(self, store: StoreIndex, attachment_id: str) -> None:
        await self._delete(
            store,
            filters.all_of(self._layout.scope(store), filters.equals("attachment", attachment_id)),
        )

    async def settle(self, store: StoreIndex) -> None:
        collection = self._layout.collection(store)

        def flush(client: MilvusClient, left: float) -> None:
            client.flush(collection, timeout=left)
            if not client.has_collection(collection, timeout=left):  # of which a flush says nothing
                raise CollectionMissing

        if self._connection.lite:
            await self._loaded(collection, flush, write=True)
            return
        # A server has written it to its log already. This waits until its searchers have read
        # the log up to now; from then on every search finds it, however little it waits itself.
        await self._loaded(
            collection,
            lambda client, left: client.query(
                collection,
                filter=filters.equals("id", "-"),
                output_fields=["id"],
                limit=1,
                consistency_level="Strong",
                timeout=left,
            ),
        )

    async def search(
        self,
        store: StoreIndex,
        vector: Sequence[float],
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        if len(vector) != store.dimension:
            raise InvalidRequest(
                f"The query's vector has {len(vector)} dimensions, the store's {store.dimension}."
            )
        found = await self._search(store, "vector", "COSINE", list(vector), limit, within)
        return [
            Hit(id=self._layout.chunk_id(store, row), score=max(-1.0, min(1.0, score)))
            for row, score in found
        ]

    async def search_text(
        self,
        store: StoreIndex,
        query: str,
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        require_keyword(await self.features())
        if not store.keyword:
            raise InvalidRequest("This vector store was made without full-text search.")
        words = schema.cut(words_of(query))
        found = await self._search(store, "words", "BM25", words, limit, within)
        hits = [
            # Lite gives it as a distance: the same number, negative.
            Hit(id=self._layout.chunk_id(store, row), score=abs(score))
            for row, score in found
            if score != 0
        ]
        return sorted(hits, key=lambda hit: -hit.score)

    async def vectors(self, store: StoreIndex, ids: Sequence[str]) -> dict[str, list[float]]:
        collection, layout = self._layout.collection(store), self._layout
        found: dict[str, list[float]] = {}
        unique = list(dict.fromkeys(ids))

        def query(rows: list[str], client: MilvusClient, left: float) -> list[dict[str, Any]]:
            answer: list[dict[str, Any]] = client.query(
                collection,
                filter=filters.any_of("id", rows),
                output_fields=["id", "vector"],
                consistency_level=_CONSISTENCY,
                timeout=left,
            )
            return answer

        for start in range(0, len(unique), _BATCH_VECTORS):
            wanted = [layout.row_id(store, one) for one in unique[start : start + _BATCH_VECTORS]]
            try:
                rows = await self._loaded(collection, partial(query, wanted), required=False)
            except CollectionMissing:
                return {}
            for row in rows:
                found[layout.chunk_id(store, row["id"])] = [float(x) for x in row["vector"]]
        return found

    async def attachments(self, store: StoreIndex) -> set[str]:
        collection = self._layout.collection(store)
        return await self._distinct(collection, self._layout.scope(store), "attachment")

    async def aclose(self) -> None:
        await self._connection.aclose()

    # What they share.

    async def _search(
        self,
        store: StoreIndex,
        field: str,
        metric: str,
        query: list[float] | str,
        limit: int,
        within: Sequence[str] | None,
    ) -> list[tuple[str, float]]:
        """Rows and the engine's scores, best first; as many searches as ``within`` needs."""
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"A search returns 1 to {MAX_LIMIT:,} results, not {limit:,}.")
        if within is not None and not within:
            return []
        collection, scope = self._layout.collection(store), self._layout.scope(store)

        async def search(expression: str) -> list[tuple[str, float]]:
            answers = await self._loaded(
                collection,
                lambda client, left: client.search(
                    collection,
                    data=[query],
                    anns_field=field,
                    filter=expression,
                    limit=limit,
                    output_fields=["id"],
                    search_params={"metric_type": metric},
                    consistency_level=_CONSISTENCY,
                    timeout=left,
                ),
            )
            return [(hit["id"], float(hit["distance"])) for hit in answers[0]]

        if within is None:
            return await search(scope)
        pieces = [
            filters.all_of(scope, filters.any_of("attachment", piece))
            for piece in filters.pieces(within)
        ]
        if len(pieces) == 1:
            return await search(pieces[0])
        found: list[tuple[str, float]] = []
        for start in range(0, len(pieces), _SEARCHES_AT_ONCE):
            group = pieces[start : start + _SEARCHES_AT_ONCE]
            for hits in await asyncio.gather(*map(search, group)):
                found.extend(hits)
        found.sort(key=lambda hit: -(abs(hit[1]) if metric == "BM25" else hit[1]))
        return found[:limit]

    async def _delete(self, store: StoreIndex, expression: str) -> None:
        collection = self._layout.collection(store)
        try:
            await self._loaded(
                collection,
                lambda client, left: client.delete(collection, filter=expression, timeout=left),
                write=True,
                required=False,
            )
        except CollectionMissing:
            return

    async def _distinct(self, collection: str, scope: str, field: str) -> set[str]:
        """All values of a field, page by page, each within the time limit."""
        try:
            pages = await self._loaded(
                collection,
                lambda client, left: client.query_iterator(
                    collection,
                    batch_size=_PAGE,
                    filter=scope,
                    output_fields=[field],
                    timeout=left,
                ),
                required=False,
            )
            found: set[str] = set()
            while page := await self._loaded(
                collection, lambda _client, _left: pages.next(), required=False
            ):
                found.update(row[field] for row in page)
        except CollectionMissing:
            return set()
        return found

    async def _loaded(
        self,
        collection: str,
        call: Call[ResultT],
        *,
        write: bool = False,
        required: bool = True,
    ) -> ResultT:
        """Make the call; a collection that isn't in memory is loaded first.

        Raises ``CollectionMissing`` where it is not ``required``, else ``UpstreamError``.
        """
        run = self._connection.write if write else self._connection.read
        try:
            try:
                return await run(call)
            except CollectionNotLoaded:
                await self._connection.write(
                    lambda client, left: client.load_collection(collection, timeout=left)
                )
                return await run(call)
        except CollectionNotLoaded as error:
            raise UpstreamError("The store's index can't be loaded.") from error
        except CollectionMissing as error:
            self._ready.discard(collection)
            if not required:
                raise
            raise UpstreamError("The store's index is missing in the vector database.") from error
