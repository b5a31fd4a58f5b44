"""Chunks into vectors, and vectors into the index."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from gateway.embeddings.embedder import Embedder, room_for_chunks
from gateway.errors import UpstreamError
from gateway.ingestion.contextual import ContextWriter
from gateway.ingestion.passage import Passage
from gateway.ingestion.repository import Claim, EarlierChunk, IngestionRepository
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import Chunk, ChunkSizes, StoreIndex, VectorIndex

__all__ = ["Indexed", "Indexer"]

logger = logging.getLogger(__name__)

_WRITE_BATCH = 200
"""Chunks in one write to the index and one to the database."""

_AHEAD = 2
"""Slices whose vectors may wait for the index, so that neither side waits for the other."""

T = TypeVar("T")
Vector = Sequence[float]


class Indexed(Struct, kw_only=True):
    """What became of a file's chunks."""

    embedded: int = 0
    reused: int = 0
    bytes: int = 0
    """Of text and vectors."""


class _Slice(Struct, frozen=True):
    """Some passages in a row, with their digests and vectors."""

    passages: Sequence[Passage]
    digests: Sequence[str]
    vectors: Sequence[Vector]
    embedded: int


class Indexer:
    """Embeds what has no vector yet, while it writes what has one.

    The file's chunks go through in slices. The vectors of several slices are made at once, so
    that the embedding model always has work; the writes happen one after the other and in order.
    Each write is to the index first and then to the database: a chunk that has a row has a vector.
    """

    def __init__(
        self,
        repository: IngestionRepository,
        index: VectorIndex,
        embedder: Embedder,
        *,
        batch_size: int,
    ) -> None:
        self._repository = repository
        self._index = index
        self._embedder = embedder
        self._slice = batch_size * max(1, _WRITE_BATCH // batch_size)

    async def run(
        self,
        activity: Activity,
        claim: Claim,
        chunks: Sequence[Chunk],
        contexts: ContextWriter | None,
    ) -> Indexed:
        """Have all these in the index and the database, and nothing else of this file.

        Raises ``NotWanted``, ``GatewayError`` (of the embedding or chat model, or the index).
        """
        await self._index.create(claim.index)
        passages = [Passage(chunk=chunk, position=at) for at, chunk in enumerate(chunks)]
        if claim.attempt > 1:
            passages = await self._take_up(claim, passages)
        done = Indexed()
        with activity.step("embed") as embedding, activity.step("index") as indexing:
            ready: asyncio.Queue[asyncio.Task[_Slice] | None] = asyncio.Queue(_AHEAD)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write(claim, ready, done))
                    for some in _parts(passages, self._slice):
                        task = group.create_task(self._make(embedding, claim, some, contexts))
                        await ready.put(task)
                    await ready.put(None)
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            await self._index.settle(claim.index)
            embedding.attributes[semconv.CHUNK_COUNT] = done.embedded
            indexing.attributes[semconv.CHUNK_COUNT] = len(passages)
        return done

    async def _take_up(self, claim: Claim, passages: list[Passage]) -> list[Passage]:
        """With the contexts that an earlier attempt has asked for.

        Where its chunks are not these (another version may have cut them), they are removed.
        """
        earlier = await self._repository.earlier_chunks(claim)
        if not earlier:
            return passages
        taken = await asyncio.to_thread(_taken_up, claim.embedding_model, passages, earlier)
        if taken is not None:
            return taken
        await self._index.delete(claim.index, claim.attachment_id)
        await self._repository.remove_chunks(claim.project, claim.attachment_id)
        return passages

    async def _make(
        self,
        activity: Activity,
        claim: Claim,
        passages: Sequence[Passage],
        contexts: ContextWriter | None,
    ) -> _Slice:
        """Find or make the vectors of these."""
        if contexts is not None:
            passages = await self._with_contexts(activity, contexts, passages)
        digests = [one.digest(claim.embedding_model) for one in passages]
        vectors = await self._known_vectors(claim, digests)
        missing = {
            digest: one.text
            for digest, one in zip(digests, passages, strict=True)
            if digest not in vectors
        }
        made = await self._embedder.embed(
            activity, claim.embedding_model, list(missing.values()), cut=self._may_cut(claim)
        )
        vectors.update(zip(missing, made, strict=True))
        return _Slice(passages, digests, [vectors[one] for one in digests], len(missing))

    def _may_cut(self, claim: Claim) -> bool:
        """Whether a passage that is too long for the model may be embedded by its beginning.

        Where chunks are small enough for the model in general, one that isn't (a table of numbers,
        long headings, a talkative context) must not fail the whole document; its text stays whole.
        Where they are larger than the model takes, that is a mistake which is better told.
        """
        sizes = claim.chunking.get(claim.chunking.get("type", ""), {})
        room = room_for_chunks(self._embedder.model(claim.embedding_model))
        size = sizes.get("max_chunk_size_tokens", ChunkSizes().max_chunk_size_tokens)
        return room is not None and bool(size <= max(room, 100))

    async def _with_contexts(
        self, activity: Activity, contexts: ContextWriter, passages: Sequence[Passage]
    ) -> Sequence[Passage]:
        without = [one for one in passages if one.context is None]
        written = {one.position: one for one in await contexts.write(activity, without)}
        return [written.get(one.position, one) for one in passages]

    async def _known_vectors(self, claim: Claim, digests: Sequence[str]) -> dict[str, Vector]:
        """By digest, the vectors that are in the index already, in this store or another."""
        known = await self._repository.known_chunks(claim, digests)
        by_store: dict[StoreIndex, dict[str, str]] = defaultdict(dict)
        for chunk in known:
            by_store[chunk.index][chunk.id] = chunk.digest
        found: dict[str, Vector] = {}
        for store, chunks in by_store.items():
            for ids in _parts(list(chunks), _WRITE_BATCH):
                try:
                    vectors = await self._index.vectors(store, ids)
                except UpstreamError as error:  # they are made anew instead
                    logger.info("No vectors from %s: %s", store.store_id, error.message)
                    break
                found.update((chunks[id_], vector) for id_, vector in vectors.items())
        return found

    async def _write(
        self, claim: Claim, ready: asyncio.Queue[asyncio.Task[_Slice] | None], done: Indexed
    ) -> None:
        while (task := await ready.get()) is not None:
            slice_ = await task
            rows = list(zip(slice_.passages, slice_.digests, slice_.vectors, strict=True))
            for some in _parts(rows, _WRITE_BATCH):
                indexed = [passage.indexed(claim, vector) for passage, _, vector in some]
                await self._index.upsert(claim.index, indexed)
                await self._repository.write_chunks(
                    claim, [passage.row(claim, digest) for passage, digest, _ in some]
                )
                done.bytes += sum(
                    len(one.text.encode()) + 4 * claim.index.dimension for one in indexed
                )
            done.embedded += slice_.embedded
            done.reused += len(rows) - slice_.embedded


def _taken_up(
    embedding_model: str, passages: list[Passage], earlier: dict[int, EarlierChunk]
) -> list[Passage] | None:
    """The passages with the contexts of earlier chunks; ``None`` where those are others."""
    taken = [
        msgspec.structs.replace(one, context=earlier[one.position].context)
        if one.position in earlier
        else one
        for one in passages
    ]
    fitting = sum(
        earlier[one.position].digest == one.digest(embedding_model)
        for one in taken
        if one.position in earlier
    )
    return taken if fitting == len(earlier) else None


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[at : at + size] for at in range(0, len(values), size))
