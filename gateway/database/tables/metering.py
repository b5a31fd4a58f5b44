"""What is used, by whom, and who changed what."""

from __future__ import annotations

from sqlalchemy import Double, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["AuditRow", "LimitCounterRow", "LimitSlotRow", "UsageRow"]


class LimitCounterRow(Base, kw_only=True):
    """What was used of a limit at a moment; times here are in seconds with fractions."""

    __tablename__ = "limit_counters"

    key: Mapped[str] = mapped_column(primary_key=True)
    used: Mapped[float] = mapped_column(Double)
    at: Mapped[float] = mapped_column(Double)
    granted: Mapped[int]
    """By the last statement, which returns it."""
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class LimitSlotRow(Base, kw_only=True):
    """How many requests a process may have in progress."""

    __tablename__ = "limit_slots"

    key: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(String(80), primary_key=True)
    slots: Mapped[int]
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class UsageRow(Base, kw_only=True):
    """What one key asked of one model in one hour. An empty ``key_id`` is "without a key"."""

    __tablename__ = "usage"
    __table_args__ = (Index("usage_by_project", "project", "hour"),)

    hour: Mapped[int] = mapped_column(primary_key=True)
    """Its first second."""
    project: Mapped[str] = mapped_column(Project, primary_key=True)
    key_id: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(String(40), primary_key=True)
    requests: Mapped[int] = mapped_column(default=0)
    errors: Mapped[int] = mapped_column(default=0)
    estimated: Mapped[int] = mapped_column(default=0)
    """Requests that broke off before the model server told their tokens."""
    input_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    cached_tokens: Mapped[int] = mapped_column(default=0)


class AuditRow(Base, kw_only=True):
    """One change, made or refused. It never changes."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("audit_log_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sequence: Mapped[int] = mapped_column(index=True)
    project: Mapped[str] = mapped_column(Project)
    subject: Mapped[str | None] = mapped_column(default=None)
    key_id: Mapped[str | None] = mapped_column(Id, default=None)
    action: Mapped[str] = mapped_column(String(80))
    """The operation's id in the contract, or a command such as ``keys.create``."""
    method: Mapped[str | None] = mapped_column(String(10), default=None)
    path: Mapped[str | None] = mapped_column(default=None)
    object_id: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[int]
    request_id: Mapped[str | None] = mapped_column(Id, default=None)
    address: Mapped[str | None] = mapped_column(String(80), default=None)
