"""``POST /v1/chat/completions``."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PATHS = ("/v1/chat/completions", "/v1/openai/v1/chat/completions")


def chat_routes(relay: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            PATHS,
            relay,
            name="createChatCompletion",
            summary="Create chat completion",
            tag="Chat",
            answers_with="chat.completion, or a stream of chat.completion.chunk events",
        )
    ]
