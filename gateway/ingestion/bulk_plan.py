"""What has to be done so that a vector store has what a bucket has.

Each document is a file in the store whose attributes say where it is from (``source``), which
content that was (``etag``), how it was cut (``chunking``) and, once all of it is there, how many
``chunks`` it has. By these the next plan knows it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.ingestion.bulk_records import Failure, Plan, PlannedDocument
from gateway.ingestion.remote_store import RemoteFile, RemoteStore
from gateway.ports import Bucket, BucketObject

__all__ = ["OWN_ATTRIBUTES", "BulkPlanner", "Sizes", "is_whole"]

OWN_ATTRIBUTES = ("source", "etag", "chunking", "chunks")

_MOST_SHARDS = 200
"""Each is a turn of the pipeline's loop; what they report has to fit into one argument."""
_LONGEST_SOURCE = 512
_CLOCKS_DIFFER_SECONDS = 600
_USUAL_SIZE, _SMALLEST_SIZE = 800, 100
_CHUNK_SHARE = 0.6
"""Of a model's context for a chunk, as the gateway has it for files it cuts itself."""


class Sizes(Struct, frozen=True, kw_only=True):
    """How to cut, in tokens; ``None`` for what fits the embedding model."""

    size: int | None = None
    overlap: int | None = None


class BulkPlanner:
    def __init__(
        self, bucket: Bucket, store: RemoteStore, *, bucket_name: str, per_shard: int
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._root = f"s3://{bucket_name}/"
        self._per_shard = per_shard

    async def make(
        self, prefix: str, sizes: Sizes, attributes: Mapping[str, str | float | bool]
    ) -> tuple[Plan, list[PlannedDocument]]:
        """The store is there already. Removes what earlier runs have left half done, and changes
        attributes where nothing else is to be done.

        Raises ``BucketFailed`` and ``Refused``.
        """
        started = int(time.time()) - _CLOCKS_DIFFER_SECONDS
        model, room = await self._store.embedding_model()
        size, overlap = _resolved(sizes, room)
        chunking = f"{size}/{overlap}"
        known = await self._known(prefix)
        documents: list[PlannedDocument] = []
        failures: list[Failure] = []
        unchanged = described = 0
        async for one in self._bucket.list(prefix):
            source = self._root + one.key
            if len(source) > _LONGEST_SOURCE:
                why = f"Its name is longer than {_LONGEST_SOURCE} characters."
                failures.append(Failure(key=one.key[:_LONGEST_SOURCE], why=why))
                continue
            there = known.get(source, [])
            current = next((file for file in there if _is_current(file, one, chunking)), None)
            if current is None:
                documents.append(_planned(one, source, there))
                continue
            for file in there:
                if file is not current:
                    await self._store.delete_file(file.file_id)
            wanted = {**attributes, **_own(current)}
            if current.attributes == wanted:
                unchanged += 1
            else:
                await self._store.set_attributes(current.file_id, wanted)
                described += 1
        per_shard = max(self._per_shard, -(-len(documents) // _MOST_SHARDS))
        plan = Plan(
            store_id=self._store.id,
            embedding_model=model,
            chunk_size=size,
            chunk_overlap=overlap,
            cut=room is not None and size <= max(int(room * _CHUNK_SHARE), _SMALLEST_SIZE),
            started=started,
            shards=-(-len(documents) // per_shard),
            documents=len(documents),
            unchanged=unchanged,
            described=described,
            attributes=dict(attributes),
            failures=failures,
        )
        return plan, [
            msgspec.structs.replace(one, shard=number // per_shard)
            for number, one in enumerate(documents)
        ]

    async def _known(self, prefix: str) -> dict[str, list[RemoteFile]]:
        """By source, what the store has of this part of the bucket; the newest first."""
        found: dict[str, list[RemoteFile]] = {}
        async for one in self._store.files():
            source = one.attributes.get("source")
            if isinstance(source, str) and source.startswith(self._root + prefix):
                found.setdefault(source, []).append(one)
        return found


def is_whole(file: RemoteFile) -> bool:
    """Whether all of its chunks are there."""
    return file.status == "completed" and "chunks" in file.attributes


def _is_current(file: RemoteFile, one: BucketObject, chunking: str) -> bool:
    said = file.attributes
    return is_whole(file) and said.get("etag") == one.etag and said.get("chunking") == chunking


def _own(file: RemoteFile) -> dict[str, Any]:
    return {key: file.attributes[key] for key in OWN_ATTRIBUTES if key in file.attributes}


def _planned(one: BucketObject, source: str, there: list[RemoteFile]) -> PlannedDocument:
    return PlannedDocument(
        shard=0,
        key=one.key,
        etag=one.etag,
        size=one.size,
        source=source,
        old=[file.file_id for file in there],
    )


def _resolved(sizes: Sizes, room: int | None) -> tuple[int, int]:
    size = sizes.size
    if size is None:
        fits = _USUAL_SIZE if room is None else int(room * _CHUNK_SHARE)
        size = max(min(_USUAL_SIZE, fits), _SMALLEST_SIZE)
    return size, size // 2 if sizes.overlap is None else sizes.overlap
