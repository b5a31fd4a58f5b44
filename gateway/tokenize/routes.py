"""``POST /tokenize`` and ``POST /detokenize``, where vLLM has them and under ``/v1``."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from gateway.http.relayed import relayed
from gateway.relay.relay import Relay

PREFIXES = ("", "/v1", "/v1/openai/v1")


def tokenize_routes(tokenize: Relay, detokenize: Relay) -> list[HTTPRouteHandler]:
    return [
        relayed(
            tuple(f"{prefix}/tokenize" for prefix in PREFIXES),
            tokenize,
            name="tokenize",
            summary="Turn a prompt or messages into token ids",
            tag="Tokenize",
            answers_with="token ids and their count",
        ),
        relayed(
            tuple(f"{prefix}/detokenize" for prefix in PREFIXES),
            detokenize,
            name="detokenize",
            summary="Turn token ids into text",
            tag="Tokenize",
            answers_with="text",
        ),
    ]
