"""The steps of a bulk ingestion that work on documents: convert, embed, insert.

Each goes through the documents of one shard. A document that can't be brought in fails alone, and
says why in its ``End``; a step fails as a whole only of what would stop every document, and may be
run again as often as needed: what it has done already is done over or left alone.
"""

from __future__ import annotations

import asyncio
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gateway.ingestion.bulk_plan import is_whole
from gateway.ingestion.bulk_records import (
    Begin,
    End,
    Failure,
    Outcome,
    Piece,
    Plan,
    PlannedDocument,
    Records,
    read_records,
)
from gateway.ingestion.remote_store import Refused, RemoteFile, RemoteStore
from gateway.ports import (
    Bucket,
    BucketObjectChanged,
    Chunk,
    ChunkSizes,
    ConversionFailed,
    DocumentConverter,
)

__all__ = ["convert_documents", "embed_documents", "insert_documents"]

_CHUNKS_IN_A_PIECE = 64
_CONVERSIONS = 3
"""Attempts, where the converter itself died or was away."""
_PAUSE_SECONDS = 1.0
_LONGEST_HEADING, _MOST_HEADINGS = 4096, 32
"""As the gateway takes them."""
_OUTCOMES_BYTES = 60_000
"""Of all shards together: they become one argument of the last step."""

T = TypeVar("T")


async def convert_documents(
    plan: Plan,
    documents: Iterable[PlannedDocument],
    bucket: Bucket,
    converter: DocumentConverter,
    into: Path,
) -> None:
    """Download, convert and cut. Raises ``BucketFailed`` where the bucket can't be read."""
    sizes = ChunkSizes(
        max_chunk_size_tokens=plan.chunk_size, chunk_overlap_tokens=plan.chunk_overlap
    )
    with Records(into) as records:
        for document in documents:
            records.write(Begin(document))
            try:
                chunks = await _converted(document, bucket, converter, sizes)
            except BucketObjectChanged as error:
                records.write(End(str(error)))
            except ConversionFailed as error:
                records.write(End(error.message))
            else:
                for some in _parts(chunks, _CHUNKS_IN_A_PIECE):
                    records.write(Piece(some))
                records.write(End(None if chunks else "No text was found in it."))


async def _converted(
    document: PlannedDocument, bucket: Bucket, converter: DocumentConverter, sizes: ChunkSizes
) -> list[Chunk]:
    with tempfile.TemporaryDirectory(prefix="understudy-") as name:
        source, structured = Path(name, "content"), Path(name, "document.json")
        await bucket.download(document.object, source)
        for attempt in range(1, _CONVERSIONS + 1):
            try:
                await converter.convert(source, _filename(document), structured)
                return await converter.chunk(structured, sizes)
            except ConversionFailed as error:
                if not error.transient or attempt == _CONVERSIONS:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
        raise AssertionError("the last attempt returns or raises")


async def embed_documents(plan: Plan, chunks: Path, store: RemoteStore, into: Path) -> None:
    """Make the vectors. Raises ``Away`` where the gateway can't."""
    with Records(into) as records:
        why: str | None = None
        for record in read_records(chunks):
            match record:
                case Begin():
                    why = None
                    records.write(record)
                case Piece() if why is None:
                    texts = [_passage(one) for one in record.chunks]
                    try:
                        vectors = await store.embed(plan.embedding_model, texts, cut=plan.cut)
                    except Refused as error:
                        why = f"It can't be embedded: {error}"
                    else:
                        records.write(Piece(record.chunks, vectors))
                case End():
                    records.write(End(record.why or why))
                case _:  # of a document that has failed
                    pass


class _Document(Struct, kw_only=True):
    """A document while it goes into the store."""

    planned: PlannedDocument
    file_id: str | None = None
    chunks: int = 0
    why: str | None = None
    skip: bool = False
    """It is there already, from an earlier attempt of this step."""


async def insert_documents(
    plan: Plan, vectors: Path, bucket: Bucket, store: RemoteStore
) -> tuple[Outcome, list[Failure]]:
    """Upload each document, insert its chunks as that file's, and remove what it replaces. What
    has become of it, and all failures.

    Raises ``Away`` and ``BucketFailed``.
    """
    earlier = await _made_since(store, plan.started)
    failures: list[Failure] = []
    done = 0
    current: _Document | None = None
    for record in read_records(vectors):
        if isinstance(record, Begin):
            current = await _begin(plan, record.document, store, earlier)
            continue
        assert current is not None  # every file begins with a Begin
        if current.skip or current.why is not None:
            pass
        elif isinstance(record, Piece):
            await _insert(plan, current, record, bucket, store)
        elif record.why is not None:
            current.why = record.why
        else:
            await _finish(plan, current, store)
        if isinstance(record, End):
            if current.why is None:
                done += 1
            else:
                await _give_up(current, store)
                failures.append(Failure(key=current.planned.key, why=current.why))
    return _outcome(plan, done, failures), failures


async def _made_since(store: RemoteStore, started: int) -> dict[str, list[RemoteFile]]:
    """By source, the files of this run; lists begin with the newest."""
    found: dict[str, list[RemoteFile]] = {}
    async for file in store.files():
        if file.created_at < started:
            break
        source = file.attributes.get("source")
        if isinstance(source, str):
            found.setdefault(source, []).append(file)
    return found


async def _begin(
    plan: Plan,
    document: PlannedDocument,
    store: RemoteStore,
    earlier: dict[str, list[RemoteFile]],
) -> _Document:
    """What an earlier attempt has finished is left alone, and what it has begun is removed."""
    current = _Document(planned=document)
    try:
        await _clear(plan, current, store, earlier)
    except Refused as error:
        current.why = f"What is there of it can't be removed: {error}"
    return current


async def _clear(
    plan: Plan,
    current: _Document,
    store: RemoteStore,
    earlier: dict[str, list[RemoteFile]],
) -> None:
    document = current.planned
    for file in earlier.get(document.source, []):
        said = file.attributes
        same = said.get("etag") == document.etag and said.get("chunking") == plan.chunking
        if file.file_id in document.old:
            continue
        if same and is_whole(file) and not current.skip:
            current.skip = True
        elif same and not is_whole(file):
            await store.delete_file(file.file_id)
    if current.skip:
        await _remove_old(current, store)


async def _insert(
    plan: Plan, current: _Document, piece: Piece, bucket: Bucket, store: RemoteStore
) -> None:
    document = current.planned
    try:
        if current.file_id is None:
            current.file_id = await _upload(document, bucket, store)
        await store.insert(
            [
                _shown(plan, current, current.chunks + number, chunk, vector)
                for number, (chunk, vector) in enumerate(
                    zip(piece.chunks, piece.vectors, strict=True)
                )
            ]
        )
    except BucketObjectChanged as error:
        current.why = str(error)
    except Refused as error:
        current.why = f"It can't be inserted: {error}"
    else:
        current.chunks += len(piece.chunks)


async def _upload(document: PlannedDocument, bucket: Bucket, store: RemoteStore) -> str:
    with tempfile.TemporaryDirectory(prefix="understudy-") as name:
        content = Path(name, "content")
        await bucket.download(document.object, content)
        return await store.upload(content, _filename(document), lambda file: file)


async def _finish(plan: Plan, current: _Document, store: RemoteStore) -> None:
    """All of it is there: say so, and only then let the old one go."""
    assert current.file_id is not None  # a document without chunks has failed
    attributes: dict[str, Any] = {
        **plan.attributes,
        "source": current.planned.source,
        "etag": current.planned.etag,
        "chunking": plan.chunking,
        "chunks": current.chunks,
    }
    try:
        await store.set_attributes(current.file_id, attributes)
    except Refused as error:
        current.why = f"It can't be inserted: {error}"
        return
    current.file_id = None  # whole: whatever comes, it stays
    try:
        await _remove_old(current, store)
    except Refused as error:
        current.why = f"It is inserted, and what it replaces can't be removed: {error}"


async def _remove_old(current: _Document, store: RemoteStore) -> None:
    for file_id in current.planned.old:
        await store.delete_file(file_id)


async def _give_up(current: _Document, store: RemoteStore) -> None:
    """Half a document must not stay. What it was to replace does."""
    if current.file_id is None:
        return
    try:
        await store.delete_file(current.file_id)
    except Refused as error:
        current.why = f"{current.why} What is inserted of it can't be removed: {error}"


def _shown(
    plan: Plan, current: _Document, number: int, chunk: Chunk, vector: bytes
) -> dict[str, Any]:
    """In LlamaStack's form. What all chunks have in common is an attribute of the file."""
    document, file_id = current.planned, current.file_id
    chunk_id = f"{file_id}-{number}"
    return {
        "content": chunk.text,
        "chunk_id": chunk_id,
        "metadata": {
            "source": document.source,
            "etag": document.etag,
            "chunking": plan.chunking,
        },
        "chunk_metadata": {
            "chunk_id": chunk_id,
            "document_id": file_id,
            "source": _filename(document),
            "content_token_count": chunk.tokens,
            "headings": [one[:_LONGEST_HEADING] for one in chunk.headings if one][:_MOST_HEADINGS],
            "pages": chunk.pages,
            "start": chunk.start,
            "end": chunk.end,
        },
        "embedding": array("f", vector).tolist(),
    }


def _passage(chunk: Chunk) -> str:
    """What is embedded: the path of headings and the text."""
    return "\n\n".join(part for part in ("\n".join(chunk.headings), chunk.text) if part)


def _filename(document: PlannedDocument) -> str:
    return PurePosixPath(document.key).name


def _outcome(plan: Plan, done: int, failures: list[Failure]) -> Outcome:
    """With as many failures as there is room for."""
    room = max(_OUTCOMES_BYTES // max(plan.shards, 1), 300)
    kept: list[Failure] = []
    for one in failures:
        short = Failure(key=one.key[-200:], why=one.why[:200])
        room -= len(msgspec.json.encode(short))
        if room < 0:
            break
        kept.append(short)
    return Outcome(done=done, failed=len(failures), failures=kept)


def _parts(values: list[T], size: int) -> Iterator[list[T]]:
    return (values[at : at + size] for at in range(0, len(values), size))
