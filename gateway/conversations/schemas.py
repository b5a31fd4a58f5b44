"""A conversation as OpenAI's clients know it. Its items are dictionaries, see ``gateway.items``."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = [
    "MAX_ITEMS_AT_ONCE",
    "ConversationObject",
    "CreateConversation",
    "CreateItems",
    "DeletedConversation",
    "UpdateConversation",
]

MAX_ITEMS_AT_ONCE = 20
"""That one request may add, as OpenAI has it."""


class CreateConversation(Struct, frozen=True, kw_only=True):
    items: list[Any] | None = None
    metadata: dict[str, Any] | None = None


class UpdateConversation(Struct, frozen=True, kw_only=True):
    """The new metadata in place of the old."""

    metadata: dict[str, Any] | None


class CreateItems(Struct, frozen=True, kw_only=True):
    items: list[Any]


class ConversationObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class DeletedConversation(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True
