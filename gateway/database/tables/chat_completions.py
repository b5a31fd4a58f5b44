"""Chat completions that were asked to be stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ChatCompletionMetadataRow", "ChatCompletionRow"]


class ChatCompletionRow(Base, kw_only=True):
    __tablename__ = "chat_completions"
    __table_args__ = (
        Index("chat_completions_by_project", "project", "sequence"),
        Index("chat_completions_by_age", "sequence"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    model: Mapped[str]
    """As the request named it."""
    bytes: Mapped[int]
    """About what the completion and its messages take."""
    completion: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """The ``chat.completion`` object as it was answered, or as its stream adds up to."""
    messages: Mapped[list[Any]] = mapped_column(default_factory=list)
    """The messages of the request."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)


class ChatCompletionMetadataRow(Base, kw_only=True):
    """One pair of a completion's metadata, for lists that are filtered by it."""

    __tablename__ = "chat_completion_metadata"

    completion_id: Mapped[str] = mapped_column(
        Id, ForeignKey("chat_completions.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))
