"""Stored chat completions as OpenAI's clients know them, with LlamaStack's ``input_messages``."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = ["DeletedCompletion", "UpdateCompletion"]


class UpdateCompletion(Struct, frozen=True, kw_only=True):
    """The new metadata in place of the old."""

    metadata: dict[str, Any] | None


class DeletedCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True
