"""Chat completions that were asked to be stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ChatCompletionRow"]


class ChatCompletionRow(Base, kw_only=True):
    __tablename__ = "chat_completions"
    __table_args__ = (Index("chat_completions_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    model: Mapped[str]
    completion: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """The ``chat.completion`` object as it was answered, or as its stream adds up to."""
    messages: Mapped[list[Any]] = mapped_column(default_factory=list)
    """The messages of the request."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)
