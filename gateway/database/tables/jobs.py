"""The queue."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id

__all__ = ["JobRow"]


class JobRow(Base, kw_only=True):
    """The queue where the database is SQLite; PostgreSQL's is procrastinate's own."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_due", "due_at"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    payload: Mapped[dict[str, Any]]
    due_at: Mapped[float]
    """When it may be taken; a lease puts it off."""
    attempt: Mapped[int] = mapped_column(default=0)
    holder: Mapped[str | None] = mapped_column(String(40), default=None)
    """The lease's owner, while it is in work."""
