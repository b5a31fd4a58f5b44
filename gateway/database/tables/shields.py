"""Shields that callers have registered."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ShieldRow"]


class ShieldRow(Base, kw_only=True):
    """LlamaStack's shield: a name for a guard model or detector."""

    __tablename__ = "shields"

    project: Mapped[str] = mapped_column(Project, primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sequence: Mapped[int]
    provider_id: Mapped[str]
    provider_resource_id: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
