"""OpenAI's shapes of a moderation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from gateway.settings import ModerationCategory

__all__ = [
    "CreateModeration",
    "InputImage",
    "InputPart",
    "ModerationObject",
    "ModerationResult",
]

MOST_INPUTS = 1000


class InputImage(Struct, frozen=True):
    url: str


class InputPart(Struct, frozen=True, kw_only=True):
    """Text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: InputImage | None = None


class CreateModeration(Struct, frozen=True, kw_only=True):
    """``input`` is a text, several texts that are judged each on its own, or parts that are one
    input together.
    """

    input: str | Annotated[list[str | InputPart], Meta(min_length=1, max_length=MOST_INPUTS)]
    model: str | None = None


class ModerationResult(Struct, frozen=True, kw_only=True):
    """The last two are LlamaStack's, and say what the guard itself calls it."""

    flagged: bool
    categories: dict[ModerationCategory, bool]
    category_scores: dict[ModerationCategory, float]
    category_applied_input_types: dict[ModerationCategory, list[Literal["text", "image"]]]
    user_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class ModerationObject(Struct, frozen=True, kw_only=True):
    id: str
    model: str
    results: list[ModerationResult]
