"""Searches, raw queries and the text of files, as requests and answers have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "ChunkMetadata",
    "FileContent",
    "HybridWeights",
    "QueriedChunk",
    "QueryAnswer",
    "QueryParams",
    "QueryRequest",
    "Ranker",
    "RankingOptions",
    "SearchContent",
    "SearchMode",
    "SearchPage",
    "SearchRequest",
    "SearchResult",
    "Weights",
]

MAX_QUERY_CHARACTERS = 16_384
MAX_QUERIES = 16

SearchMode = Literal["vector", "keyword", "hybrid"]
Ranker = Literal[
    "auto",
    "none",
    "default-2024-11-15",
    "default_2024_08_21",
    "rrf",
    "weighted",
    "normalized",
    "neural",
    "classifier",
]
QueryText = Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0, le=1_000_000)]


class Weights(Struct, frozen=True, kw_only=True):
    """LlamaStack's. What counts is their proportion."""

    vector: Weight | None = None
    keyword: Weight | None = None
    neural: Weight | None = None


class HybridWeights(Struct, frozen=True, kw_only=True):
    """OpenAI's, of the two lists in reciprocal rank fusion."""

    embedding_weight: Weight
    text_weight: Weight


class RankingOptions(Struct, frozen=True, kw_only=True):
    """``score_threshold`` is OpenAI's, and so are ``auto``, ``none``, the dated rankers and
    ``hybrid_search``; the other fields are LlamaStack's.

    ``alpha`` is the vectors' share of a weighted score. ``model`` is a rerank model, for
    ``neural`` and ``classifier``, which are one.
    """

    ranker: Ranker | None = None
    score_threshold: Share | None = None
    alpha: Share | None = None
    impact_factor: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    weights: Weights | None = None
    model: Annotated[str, Meta(min_length=1)] | None = None
    hybrid_search: HybridWeights | None = None


class SearchRequest(Struct, frozen=True, kw_only=True):
    """``search_mode`` is LlamaStack's."""

    query: QueryText | Annotated[list[QueryText], Meta(min_length=1, max_length=MAX_QUERIES)]
    filters: dict[str, Any] | None = None
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = None
    search_mode: SearchMode | None = None


class QueryParams(Struct, frozen=True, kw_only=True):
    """``reranker_params`` are fields of ``RankingOptions``."""

    mode: SearchMode | None = None
    max_chunks: Annotated[int, Meta(ge=1, le=1000)] | None = None
    score_threshold: float | None = None
    filters: dict[str, Any] | None = None
    reranker_type: Ranker | None = None
    reranker_params: RankingOptions | None = None


class QueryRequest(Struct, frozen=True, kw_only=True):
    """LlamaStack's raw query. ``vector_db_id`` is what it called the store up to 0.3.

    ``query`` is a text, a part ``{"type": "text", "text": …}``, or a list of both.
    """

    vector_store_id: Annotated[str, Meta(min_length=1)] | None = None
    vector_db_id: Annotated[str, Meta(min_length=1)] | None = None
    query: str | dict[str, Any] | list[Any]
    params: QueryParams | None = None


class ChunkMetadata(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a chunk is in its document, for citations; what isn't known is left out.

    The first four are LlamaStack's. ``start`` and ``end`` are in characters of the document's
    plain text, ``pages`` count from 1, ``position`` is the chunk's among the file's, from 0.
    ``context`` is what a model wrote about it.
    """

    chunk_id: str
    document_id: str
    source: str | None = None
    content_token_count: int | None = None
    position: int
    headings: list[str] = []
    pages: list[int] = []
    start: int | None = None
    end: int | None = None
    context: str | None = None


class SearchContent(Struct, frozen=True, kw_only=True):
    """OpenAI's ``type`` and ``text``, and where it comes from."""

    type: Literal["text"] = "text"
    text: str
    chunk_metadata: ChunkMetadata


class SearchResult(Struct, frozen=True, kw_only=True):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[SearchContent]


class SearchPage(Struct, frozen=True, kw_only=True):
    """``search_query`` is what was searched for: the queries, or what a model made of them."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool = False
    next_page: str | None = None


class QueriedChunk(Struct, frozen=True, kw_only=True):
    content: str
    chunk_id: str
    metadata: dict[str, Any]
    chunk_metadata: ChunkMetadata
    embedding: list[float]
    embedding_model: str
    embedding_dimension: int


class QueryAnswer(Struct, frozen=True, kw_only=True):
    """Best first; ``scores`` belong to ``chunks`` one by one."""

    chunks: list[QueriedChunk]
    scores: list[float]


class FileContent(Struct, frozen=True, kw_only=True):
    """One chunk of a file's text; the fields after ``text`` only where they are asked for."""

    type: Literal["text"] = "text"
    text: str
    embedding: list[float] | UnsetType = UNSET
    chunk_metadata: ChunkMetadata | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
