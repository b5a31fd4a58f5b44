"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PATHS = ("/v1/messages", "/v1/openai/v1/messages")


def message_routes(messages: Relay, count_tokens: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            PATHS,
            messages,
            name="createMessage",
            summary="Create a message (Anthropic)",
            tag="Messages",
            answers_with="message, or a stream of message events",
        ),
        relayed(
            tuple(f"{path}/count_tokens" for path in PATHS),
            count_tokens,
            name="countMessageTokens",
            summary="Count the tokens of a message (Anthropic)",
            tag="Messages",
            answers_with="token count",
        ),
    ]
