"""The rerank request in its two forms."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct


class RerankRequest(Struct, frozen=True, kw_only=True):
    """Jina's and Cohere's form, which vLLM takes; as far as the gateway reads it."""

    model: str
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]] | dict[str, Any]
    top_n: int | None = None


class InferenceRerankRequest(Struct, frozen=True, kw_only=True):
    """LlamaStack's form. Query and items are texts, or parts ``{"type": "text", "text": …}``."""

    model: str
    query: str | dict[str, Any]
    items: Annotated[list[str | dict[str, Any]], Meta(min_length=1)]
    max_num_results: Annotated[int, Meta(ge=1)] | None = None


class RankedItem(Struct, frozen=True):
    index: int
    relevance_score: float


class InferenceRerankResponse(Struct, frozen=True):
    """Best first."""

    data: list[RankedItem]
