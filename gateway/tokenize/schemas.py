"""The requests, as far as the gateway reads them."""

from __future__ import annotations

from msgspec import Raw, Struct


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """Either a ``prompt`` or chat ``messages``."""

    model: str
    prompt: str | None = None
    messages: list[Raw] | None = None


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    model: str
    tokens: list[int]
