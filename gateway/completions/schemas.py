"""The text completion request, as far as the gateway reads it."""

from __future__ import annotations

from gateway.chat.schemas import GenerationRequest


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None
