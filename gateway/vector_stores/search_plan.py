"""What a search is asked to do, checked and with every default in it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.settings import SearchSettings
from gateway.vector_stores.filters import Filter, read_filter
from gateway.vector_stores.ranking import IMPACT_FACTOR
from gateway.vector_stores.search_schemas import (
    MAX_QUERIES,
    MAX_QUERY_CHARACTERS,
    QueryParams,
    QueryRequest,
    RankingOptions,
    SearchMode,
    SearchRequest,
    Weights,
)

__all__ = ["SearchPlan", "plan_query", "plan_search"]

DEFAULT_RESULTS = 10
DEFAULT_CHUNKS = 3
"""Of ``/v1/vector-io/query``, as LlamaStack has it."""

_MODELS = ("neural", "classifier")
_BY_SCORE = ("weighted", "normalized")


class SearchPlan(Struct, frozen=True, kw_only=True):
    """``limit`` is how many chunks are wanted, ``threshold`` the least score of each.

    The weights are those of the two lists in a hybrid search; ``neural_share`` is the rerank
    model's part in the score where one is asked.
    """

    queries: list[str]
    mode: SearchMode
    mode_is_default: bool = False
    """Nobody asked for this mode, so that a store that can't do it is searched by vector."""
    limit: int
    threshold: float = 0.0
    filter: Filter | None = None
    rewrite: bool = False
    fusion: Literal["rrf", "weighted"] = "rrf"
    impact_factor: float = IMPACT_FACTOR
    vector_weight: float = 1.0
    keyword_weight: float = 1.0
    neural: bool = False
    rerank_model: str | None = None
    neural_share: float = 1.0


def plan_search(request: SearchRequest, settings: SearchSettings) -> SearchPlan:
    """Raises ``InvalidRequest`` that names the parameter at fault."""
    queries = [request.query] if isinstance(request.query, str) else request.query
    for index, query in enumerate(queries):
        name = "query" if isinstance(request.query, str) else f"query[{index}]"
        _check_query(query, name)
    options = request.ranking_options or RankingOptions()
    mode = request.search_mode
    if mode is None and options.hybrid_search is not None:
        mode = "hybrid"
    return SearchPlan(
        queries=queries,
        mode=mode or settings.default_mode,
        mode_is_default=mode is None,
        limit=request.max_num_results or DEFAULT_RESULTS,
        threshold=options.score_threshold or 0.0,
        filter=read_filter(request.filters),
        rewrite=bool(request.rewrite_query),
        **_ranking(options, "ranking_options"),
    )


def plan_query(request: QueryRequest, settings: SearchSettings) -> SearchPlan:
    """The same for LlamaStack's raw query."""
    params = request.params or QueryParams()
    options = params.reranker_params or RankingOptions()
    query = _text_of(request.query)
    _check_query(query, "query")
    return SearchPlan(
        queries=[query],
        mode=params.mode or settings.default_mode,
        mode_is_default=params.mode is None,
        limit=params.max_chunks or DEFAULT_CHUNKS,
        threshold=params.score_threshold or options.score_threshold or 0.0,
        filter=read_filter(params.filters, "params.filters"),
        **_ranking(
            RankingOptions(
                ranker=params.reranker_type or options.ranker,
                alpha=options.alpha,
                impact_factor=options.impact_factor,
                weights=options.weights,
                model=options.model,
                hybrid_search=options.hybrid_search,
            ),
            "params.reranker_params",
        ),
    )


def _ranking(options: RankingOptions, param: str) -> dict[str, Any]:
    weights = options.weights or Weights()
    vector, keyword = weights.vector, weights.keyword
    if options.hybrid_search is not None:
        vector = options.hybrid_search.embedding_weight
        keyword = options.hybrid_search.text_weight
        param = f"{param}.hybrid_search"
    else:
        param = f"{param}.weights"
        if options.alpha is not None and options.ranker in _BY_SCORE:
            vector, keyword = options.alpha, 1 - options.alpha
    if vector is None and keyword is None:
        vector = keyword = 1.0
    vector, keyword = vector or 0.0, keyword or 0.0
    neural = options.ranker in _MODELS
    if vector + keyword == 0 and not (neural and weights.neural):
        raise InvalidRequest(
            f"Invalid value for '{param}': at least one weight must be above 0.",
            param=param,
            code="invalid_value",
        )
    share = 1.0
    if neural and weights.neural is not None:
        given = (weights.vector or 0.0) + (weights.keyword or 0.0)
        share = weights.neural / (weights.neural + given) if weights.neural + given else 1.0
    if vector + keyword == 0:
        vector = keyword = 1.0
    return {
        "fusion": "weighted" if options.ranker in _BY_SCORE else "rrf",
        "impact_factor": options.impact_factor or IMPACT_FACTOR,
        "vector_weight": vector,
        "keyword_weight": keyword,
        "neural": neural,
        "rerank_model": options.model,
        "neural_share": share,
    }


def _check_query(query: str, param: str) -> None:
    if not query.strip():
        raise InvalidRequest(
            f"Invalid '{param}': the query is empty.", param=param, code="invalid_value"
        )
    if len(query) > MAX_QUERY_CHARACTERS:
        raise InvalidRequest(
            f"Invalid '{param}': string too long. Expected a string with maximum length "
            f"{MAX_QUERY_CHARACTERS}, but got a string with length {len(query)} instead.",
            param=param,
            code="string_above_max_length",
        )


def _text_of(query: str | dict[str, Any] | list[Any]) -> str:
    """The text of a query in parts, which LlamaStack joins by spaces."""
    parts = query if isinstance(query, list) else [query]
    if not 1 <= len(parts) <= MAX_QUERIES:
        raise InvalidRequest(
            f"Invalid 'query': expected 1 to {MAX_QUERIES} parts.",
            param="query",
            code="invalid_value",
        )
    texts: list[str] = []
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            name = f"query[{index}]" if isinstance(query, list) else "query"
            raise InvalidRequest(
                f"Invalid value for '{name}': only text can be searched for.",
                param=name,
                code="invalid_value",
            )
        texts.append(text)
    return " ".join(texts)
