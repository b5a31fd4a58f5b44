"""``POST /v1/completions``."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PATHS = ("/v1/completions", "/v1/openai/v1/completions")


def completion_routes(relay: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            PATHS,
            relay,
            name="createCompletion",
            summary="Create completion",
            tag="Completions",
            answers_with="text_completion, or a stream of them",
        )
    ]
