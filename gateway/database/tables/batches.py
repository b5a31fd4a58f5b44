"""Batches and the lines of their input that are done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["BatchLineRow", "BatchRow"]


class BatchRow(Base, kw_only=True):
    """``status`` is OpenAI's; the times are when it came to each."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("batches_by_project", "project", "sequence"),
        Index("batches_once", "project", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    principal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Who asked for it, beside the project."""
    endpoint: Mapped[str] = mapped_column(String(80))
    input_file_id: Mapped[str] = mapped_column(Id)
    completion_window: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), default="validating", index=True)
    expires_at: Mapped[int]
    idempotency_key: Mapped[str | None] = mapped_column(String(255), default=None)
    fingerprint: Mapped[str | None] = mapped_column(String(64), default=None)
    """sha256 of the request that the key stands for."""
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", default=None)
    model: Mapped[str | None] = mapped_column(default=None)
    errors: Mapped[list[Any]] = mapped_column(default_factory=list)
    output_file_id: Mapped[str | None] = mapped_column(Id, default=None)
    error_file_id: Mapped[str | None] = mapped_column(Id, default=None)
    output_seconds: Mapped[int | None] = mapped_column(default=None)
    """How long its files stay, where the request said so."""
    outcome: Mapped[str | None] = mapped_column(String(20), default=None)
    """The status that it is to end in, from when its lines are done until its files are."""
    total: Mapped[int] = mapped_column(default=0)
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(default=0)
    cached_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    reasoning_tokens: Mapped[int] = mapped_column(default=0)
    in_progress_at: Mapped[int | None] = mapped_column(default=None)
    finalizing_at: Mapped[int | None] = mapped_column(default=None)
    completed_at: Mapped[int | None] = mapped_column(default=None)
    failed_at: Mapped[int | None] = mapped_column(default=None)
    expired_at: Mapped[int | None] = mapped_column(default=None)
    cancelling_at: Mapped[int | None] = mapped_column(default=None)
    cancelled_at: Mapped[int | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=0)
    touched_at: Mapped[int] = mapped_column(default=0)
    """When a worker last showed that it has it."""
    traceparent: Mapped[str | None] = mapped_column(String(64), default=None)
    """Of the request that asked for it."""


class BatchLineRow(Base, kw_only=True):
    """A line that is done; it is never done again. Gone once the files are written."""

    __tablename__ = "batch_lines"

    batch_id: Mapped[str] = mapped_column(
        Id, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    """The number of its line in the input file, from 1."""
    project: Mapped[str] = mapped_column(Project)
    failed: Mapped[bool]
    result: Mapped[str]
    """Its line of the output or error file."""
