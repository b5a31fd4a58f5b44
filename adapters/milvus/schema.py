"""The fields and indexes of a collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from adapters.milvus.errors import is_exists
from adapters.milvus.layout import STORE_FIELD, Layout
from adapters.milvus.words import words_of
from gateway.ports import IndexedChunk, StoreIndex

if TYPE_CHECKING:
    from pymilvus import MilvusClient

__all__ = ["cut", "make_room", "rows"]

TEXT_BYTES = 60_000
"""Milvus takes 65,535; analysers need some room."""

_KEY_LENGTH = 512


def rows(layout: Layout, store: StoreIndex, chunks: Sequence[IndexedChunk]) -> list[dict[str, Any]]:
    """One for each chunk id, the last one given."""
    common = layout.columns(store)
    made: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        row = {
            "id": layout.row_id(store, chunk.id),
            "attachment": chunk.attachment_id,
            "vector": list(chunk.vector),
            **common,
        }
        if store.keyword:
            row["text"] = cut(words_of(chunk.text))
        made[chunk.id] = row
    return list(made.values())


def cut(text: str) -> str:
    """At most 60,000 bytes of UTF-8, whole characters, without what UTF-8 can't hold."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore")


def make_room(
    client: MilvusClient, layout: Layout, store: StoreIndex, *, lite: bool, timeout: float
) -> None:
    """The collection with its indexes, in memory. What is there already stays as it is, so that
    several may do this at once and one may go on where another one was cut off.
    """
    collection = layout.collection(store)
    if not client.has_collection(collection, timeout=timeout):
        _unless_exists(partial(_create, client, layout, store, timeout))
    for index in _indexes(client, store, lite=lite):
        _unless_exists(partial(client.create_index, collection, index, sync=False, timeout=timeout))
    client.load_collection(collection, timeout=timeout)


def _create(client: MilvusClient, layout: Layout, store: StoreIndex, timeout: float) -> None:
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=_KEY_LENGTH, is_primary=True)
    if layout.shared:
        schema.add_field(
            STORE_FIELD, DataType.VARCHAR, max_length=_KEY_LENGTH, is_partition_key=True
        )
    schema.add_field("attachment", DataType.VARCHAR, max_length=_KEY_LENGTH)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=store.dimension)
    if store.keyword:
        schema.add_field("text", DataType.VARCHAR, max_length=65_535, enable_analyzer=True)
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["text"],
                output_field_names=["words"],
            )
        )
    client.create_collection(
        layout.collection(store), schema=schema, consistency_level="Bounded", timeout=timeout
    )


def _indexes(client: MilvusClient, store: StoreIndex, *, lite: bool) -> list[Any]:
    """One for each field, each made by itself: Lite raises for one that is there already.

    Lite gets no graph. Its HNSW forgets hits under a filter (measured: 6 of 10 for one file of a
    hundred) and takes a minute to close; comparing all vectors is exact, and its other work grows
    with the rows in any case.
    """
    vector = client.prepare_index_params()
    vector.add_index("vector", index_type="FLAT" if lite else "AUTOINDEX", metric_type="COSINE")
    made = [vector]
    if store.keyword:
        words = client.prepare_index_params()
        words.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        made.append(words)
    return made


def _unless_exists(create: Callable[[], object]) -> None:
    try:
        create()
    except Exception as error:
        if not is_exists(error):
            raise
