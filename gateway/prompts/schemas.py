"""A prompt as LlamaStack's clients know it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = [
    "CreatePrompt",
    "PromptList",
    "PromptObject",
    "RenderedPrompt",
    "SetDefaultVersion",
    "UpdatePrompt",
]

Variables = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=256)
]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class CreatePrompt(Struct, frozen=True, kw_only=True):
    prompt: str
    variables: Variables | None = None
    """Those that the text names, where left out."""


class UpdatePrompt(Struct, frozen=True, kw_only=True):
    """A new version. ``version`` is the newest one so far."""

    prompt: str
    version: Version
    variables: Variables | None = None
    set_as_default: bool = True


class SetDefaultVersion(Struct, frozen=True, kw_only=True):
    version: Version


class PromptObject(Struct, frozen=True, kw_only=True):
    """One version of a prompt."""

    prompt: str
    version: int
    prompt_id: str
    variables: list[str]
    is_default: bool


class PromptList(Struct, frozen=True, kw_only=True):
    """LlamaStack's list has no pages."""

    data: list[PromptObject]


class RenderedPrompt(Struct, frozen=True, kw_only=True):
    """A prompt with its variables filled in. ``parts`` are the images and files among them, as
    parts of a message; in the text there is nothing in their place.
    """

    prompt_id: str
    version: int
    text: str
    parts: list[dict[str, Any]]
