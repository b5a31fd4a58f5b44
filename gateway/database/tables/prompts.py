"""Prompts and their versions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["PromptRow", "PromptVersionRow"]


class PromptRow(Base, kw_only=True):
    __tablename__ = "prompts"
    __table_args__ = (Index("prompts_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    latest_version: Mapped[int]
    default_version: Mapped[int]


class PromptVersionRow(Base, kw_only=True):
    """One version; it never changes."""

    __tablename__ = "prompt_versions"
    __table_args__ = (Index("prompt_versions_by_project", "project"),)

    prompt_id: Mapped[str] = mapped_column(
        Id, ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    prompt: Mapped[str]
    variables: Mapped[list[Any]] = mapped_column(default_factory=list)
