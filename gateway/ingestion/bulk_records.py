"""What the steps of a bulk ingestion hand to each other: files of JSON, one record a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from gateway.ports import BucketObject, Chunk

__all__ = [
    "Begin",
    "End",
    "Failure",
    "Outcome",
    "Piece",
    "Plan",
    "PlannedDocument",
    "Record",
    "Records",
    "read_outcome",
    "read_plan",
    "read_records",
    "write_plan",
]


class Plan(Struct, frozen=True, kw_only=True):
    """The first line of a plan: what holds for all of its documents, which follow."""

    store_id: str
    embedding_model: str
    chunk_size: int
    """In tokens, as is ``chunk_overlap``."""
    chunk_overlap: int
    cut: bool
    """Whether of a passage that is too long for the model only the beginning is embedded."""
    started: int
    """In Unix seconds."""
    shards: int
    documents: int
    unchanged: int
    described: int
    """Documents whose attributes alone were changed."""
    attributes: dict[str, str | float | bool]
    """Of every document."""
    failures: list[Failure] = []
    """Documents that no step has to look at."""

    @property
    def chunking(self) -> str:
        """As an attribute of the documents: what is cut in another way is cut again."""
        return f"{self.chunk_size}/{self.chunk_overlap}"


class Failure(Struct, frozen=True, kw_only=True):
    key: str
    why: str


class PlannedDocument(Struct, frozen=True, kw_only=True):
    """A document that is to be brought into the store by the task of its ``shard``."""

    shard: int
    key: str
    etag: str
    size: int
    source: str
    """Its name in the store's attributes: ``s3://BUCKET/KEY``."""
    old: list[str] = []
    """The files that it replaces."""

    @property
    def object(self) -> BucketObject:
        return BucketObject(key=self.key, etag=self.etag, size=self.size)


class Begin(Struct, frozen=True, tag="begin"):
    """What follows is of this document, up to its ``End``."""

    document: PlannedDocument


class Piece(Struct, frozen=True, tag="piece"):
    """Some chunks in a row, and their vectors (32-bit floats) once they are made."""

    chunks: list[Chunk]
    vectors: list[bytes] = []


class End(Struct, frozen=True, tag="end"):
    """The document is whole, or has failed: then the pieces before are of no use."""

    why: str | None = None


Record = Begin | Piece | End


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a shard. Not every failure may be in ``failures``: it has to stay short."""

    done: int
    failed: int
    failures: list[Failure] = []


_record = msgspec.json.Decoder(Record)
_planned = msgspec.json.Decoder(PlannedDocument)
_outcome = msgspec.json.Decoder(Outcome)


class Records:
    """A file of records, being written. Blocks; used from threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def write(self, record: Record) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line in file:
            yield _record.decode(line)


def write_plan(path: Path, plan: Plan, documents: list[PlannedDocument]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (plan, *documents)))


def read_plan(path: Path, shard: int | None = None) -> tuple[Plan, list[PlannedDocument]]:
    """The plan, and the documents of this shard; none of them where none is named."""
    with path.open("rb") as file:
        plan = msgspec.json.decode(file.readline(), type=Plan)
        if shard is None:
            return plan, []
        planned = (_planned.decode(line) for line in file)
        return plan, [one for one in planned if one.shard == shard]


def read_outcome(text: str) -> Outcome:
    """Raises ``msgspec.DecodeError``."""
    return _outcome.decode(text)
