"""``POST /v1/rerank`` and its other forms."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PATHS = ("/v1/rerank", "/v1/openai/v1/rerank", "/v2/rerank", "/rerank")
INFERENCE_PATHS = ("/v1alpha/inference/rerank",)


def rerank_routes(relay: Relay, inference_relay: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            PATHS,
            relay,
            name="rerank",
            summary="Rank documents by their relevance to a query",
            tag="Rerank",
            answers_with="ranking in the form of Jina, Cohere and vLLM",
        ),
        relayed(
            INFERENCE_PATHS,
            inference_relay,
            name="inferenceRerank",
            summary="Rank items by their relevance to a query (LlamaStack)",
            tag="Rerank",
            answers_with="ranking in LlamaStack's form",
        ),
    ]
