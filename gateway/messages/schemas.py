"""Anthropic's requests, as far as the gateway reads them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gateway.chat.schemas import Message


class CountTokensRequest(Struct, frozen=True, kw_only=True):
    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    max_tokens: Annotated[int, Meta(ge=1)]
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
