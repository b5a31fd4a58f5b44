"""Where a store's rows lie, derived from the store alone.

``per_store``
    A collection for each vector store, ``understudy_DIGEST_STORE``: the digest is the project's,
    the store's id is kept readable. Quick to drop and, on Milvus Lite, to search.
``shared``
    A collection for each dimension, with and without full-text search apart:
    ``understudy_shared_384``, ``understudy_shared_384_text``. The partition key tells the stores
    apart. For thousands of small stores, where a collection for each costs a server too much.

Only collections of these names are ever listed, read or dropped.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal, Protocol

from adapters.milvus.filters import equals
from gateway.ports import StoreIndex

__all__ = ["STORE_FIELD", "Layout", "PerStore", "Shared", "layout_named"]

STORE_FIELD = "store"
_PREFIX = "understudy_"
_SHARED = "understudy_shared_"
_DIGEST_LENGTH = 12
_PER_STORE_NAME = re.compile(rf"{_PREFIX}[0-9a-f]{{{_DIGEST_LENGTH}}}_(\w+)", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_]")
_ESCAPED = re.compile(r"(?:__[0-9a-f]{2})+")


class Layout(Protocol):
    """Collections and rows of a store."""

    shared: bool

    def collection(self, store: StoreIndex) -> str:
        """The name of the collection."""

    def scope(self, store: StoreIndex) -> str:
        """The expression that keeps to this store's rows; empty where all of them are its own."""

    def row_id(self, store: StoreIndex, chunk_id: str) -> str:
        """The primary key of a chunk's row."""

    def chunk_id(self, store: StoreIndex, row_id: str) -> str:
        """The chunk of a row."""

    def columns(self, store: StoreIndex) -> dict[str, str]:
        """What each row has beside its own."""


class PerStore:
    shared = False

    def collection(self, store: StoreIndex) -> str:
        return f"{_PREFIX}{_digest(store.project)}_{escaped(store.store_id)}"

    def scope(self, store: StoreIndex) -> str:  # noqa: ARG002  (the port's signature)
        return ""

    def row_id(self, store: StoreIndex, chunk_id: str) -> str:  # noqa: ARG002
        return chunk_id

    def chunk_id(self, store: StoreIndex, row_id: str) -> str:  # noqa: ARG002
        return row_id

    def columns(self, store: StoreIndex) -> dict[str, str]:  # noqa: ARG002
        return {}

    @staticmethod
    def store_of(collection: str) -> str | None:
        """The id of the store whose collection this is, if it is one of these."""
        found = _PER_STORE_NAME.fullmatch(collection)
        return unescaped(found[1]) if found else None


class Shared:
    shared = True

    def collection(self, store: StoreIndex) -> str:
        return f"{_SHARED}{store.dimension}{'_text' if store.keyword else ''}"

    def scope(self, store: StoreIndex) -> str:
        return equals(STORE_FIELD, _key(store))

    def row_id(self, store: StoreIndex, chunk_id: str) -> str:
        return f"{_key(store)}/{chunk_id}"

    def chunk_id(self, store: StoreIndex, row_id: str) -> str:
        return row_id.removeprefix(f"{_key(store)}/")

    def columns(self, store: StoreIndex) -> dict[str, str]:
        return {STORE_FIELD: _key(store)}

    @staticmethod
    def is_shared(collection: str) -> bool:
        return collection.startswith(_SHARED)

    @staticmethod
    def store_of(key: str) -> str:
        """The id of the store with this partition key."""
        return key.partition("/")[2]


def layout_named(name: Literal["per_store", "shared"]) -> Layout:
    return Shared() if name == "shared" else PerStore()


def escaped(text: str) -> str:
    """As a part of a collection's name, which has letters, digits and underscores only."""
    doubled = text.replace("__", "\0\0")
    return "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"__{byte:02x}" for byte in _bytes_of(char))
        for char in doubled
    )


def unescaped(text: str) -> str:
    """What ``escaped`` was given."""
    return _ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("__", "")).decode("utf-8", "replace"), text
    )


def _bytes_of(char: str) -> bytes:
    return b"_" if char == "\0" else char.encode()


def _key(store: StoreIndex) -> str:
    return f"{_digest(store.project)}/{store.store_id}"


def _digest(project: str) -> str:
    return hashlib.sha256(project.encode()).hexdigest()[:_DIGEST_LENGTH]
