"""Responses and what their streams said."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ResponseEventsRow", "ResponseItemRow", "ResponseRow"]


class ResponseRow(Base, kw_only=True):
    """A stored response. ``status`` is OpenAI's.

    Only a response in the background has a row before it is over. ``attempt`` counts the workers
    that took it up: what a worker writes counts only while it is still its turn.
    """

    __tablename__ = "responses"
    __table_args__ = (Index("responses_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    model: Mapped[str]
    status: Mapped[str] = mapped_column(String(20), index=True)
    background: Mapped[bool] = mapped_column(default=False)
    previous_id: Mapped[str | None] = mapped_column(Id, default=None, index=True)
    conversation_id: Mapped[str | None] = mapped_column(Id, default=None)
    body: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """The response object without its ``output``."""
    input: Mapped[list[Any]] = mapped_column(default_factory=list)
    """The items that came with the request, each with its id."""
    output: Mapped[list[Any]] = mapped_column(default_factory=list)
    """The items made so far, with what ``include`` may hide."""
    request: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """What a worker needs to do it, while it is in the background and not over."""
    private: Mapped[bool] = mapped_column(default=False)
    """Whether it needs secrets that only the process has that took the request."""
    streamed: Mapped[bool] = mapped_column(default=False)
    """Whether its events are kept."""
    attempt: Mapped[int] = mapped_column(default=0)
    touched_at: Mapped[int] = mapped_column(default=0)
    """When a worker last showed that it has it."""
    traceparent: Mapped[str | None] = mapped_column(String(64), default=None)
    """Of the request that asked for it."""
    key_id: Mapped[str | None] = mapped_column(Id, default=None)
    """The API key that asked for it, which its tokens are counted for."""


class ResponseItemRow(Base, kw_only=True):
    """Which response an item of an output is in, for those who refer to it by its id."""

    __tablename__ = "response_items"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    response_id: Mapped[str] = mapped_column(
        Id, ForeignKey("responses.id", ondelete="CASCADE"), index=True
    )


class ResponseEventsRow(Base, kw_only=True):
    """A run of events of a background response's stream, for readers that come later."""

    __tablename__ = "response_events"

    response_id: Mapped[str] = mapped_column(
        Id, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True
    )
    first: Mapped[int] = mapped_column(primary_key=True)
    """``sequence_number`` of the first of them; ``last`` of the last."""
    last: Mapped[int]
    events: Mapped[str]
    """One event's JSON on each line."""
