"""The embedding request, as far as the gateway reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """``input`` is one text, a list of texts, one list of token ids, or a list of such lists."""

    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
