"""Conversations and their items."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ConversationItemRow", "ConversationRow"]


class ConversationRow(Base, kw_only=True):
    __tablename__ = "conversations"
    __table_args__ = (Index("conversations_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)


class ConversationItemRow(Base, kw_only=True):
    """An item. Its id is unique in its conversation only: callers may copy items."""

    __tablename__ = "conversation_items"
    __table_args__ = (
        Index("conversation_items_in_order", "conversation_id", "sequence"),
        Index("conversation_items_by_id", "project", "id"),
    )

    conversation_id: Mapped[str] = mapped_column(
        Id, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    body: Mapped[dict[str, Any]]
    """The item as :mod:`gateway.items` has it, its id included."""
