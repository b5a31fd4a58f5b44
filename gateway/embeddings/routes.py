"""``POST /v1/embeddings``."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PATHS = ("/v1/embeddings", "/v1/openai/v1/embeddings")


def embedding_routes(relay: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            PATHS,
            relay,
            name="createEmbedding",
            summary="Create embeddings",
            tag="Embeddings",
            answers_with="list of embeddings",
        )
    ]
