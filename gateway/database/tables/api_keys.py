"""Keys that callers prove themselves with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ApiKeyRow"]

_Digest = String(64)


class ApiKeyRow(Base, kw_only=True):
    """A key; its secret is nowhere, and its digest (SHA-256, hexadecimal) is what it is found by.

    ``prefix`` is the part of the secret that people know it by. ``models`` is ``None`` for all.
    After a rotation the secret before it is good until ``previous_until``.
    """

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(_Digest, unique=True)
    scopes: Mapped[list[Any]]
    models: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    expires_at: Mapped[int | None] = mapped_column(default=None)
    revoked_at: Mapped[int | None] = mapped_column(default=None)
    last_used_at: Mapped[int | None] = mapped_column(default=None)
    """To within some minutes."""
    previous_digest: Mapped[str | None] = mapped_column(_Digest, unique=True, default=None)
    previous_until: Mapped[int | None] = mapped_column(default=None)
