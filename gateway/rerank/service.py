"""Reranking by a model of the catalog."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest, UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.relay.operation import Operation
from gateway.rerank.schemas import (
    InferenceRerankRequest,
    InferenceRerankResponse,
    RankedItem,
    RerankRequest,
)

RERANK = Operation(
    name="rerank",
    path="/v1/rerank",
    request=RerankRequest,
    # vLLM reranks by cosine with an embedding model too.
    kinds=("rerank", "embedding"),
)


class _Results(Struct, frozen=True):
    results: list[RankedItem]


def to_rerank_request(request: InferenceRerankRequest) -> bytes:
    """LlamaStack's request as vLLM takes it. Raises ``InvalidRequest`` for a part without text."""
    body: dict[str, Any] = {
        "model": request.model,
        "query": _text(request.query, "query"),
        "documents": [_text(item, f"items[{index}]") for index, item in enumerate(request.items)],
    }
    if request.max_num_results is not None:
        body["top_n"] = request.max_num_results
    return msgspec.json.encode(body)


def to_inference_response(body: bytes) -> bytes:
    """VLLM's answer as LlamaStack gives it."""
    try:
        results = msgspec.json.decode(body, type=_Results).results
    except NOT_JSON as error:
        raise UpstreamError(f"The model server's answer is not a ranking: {error}") from None
    ranked = sorted(results, key=lambda item: -item.relevance_score)
    return msgspec.json.encode(InferenceRerankResponse(data=ranked))


INFERENCE_RERANK = Operation(
    name="rerank",
    path="/v1/rerank",
    request=InferenceRerankRequest,
    kinds=RERANK.kinds,
    to_upstream=to_rerank_request,
    from_upstream=to_inference_response,
)


def _text(part: str | dict[str, Any], param: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidRequest(
            f"Invalid value for '{param}': only text can be reranked.",
            param=param,
            code="invalid_value",
        )
    return text
