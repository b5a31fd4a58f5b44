"""Tool groups that callers have registered."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["ToolGroupRow"]


class ToolGroupRow(Base, kw_only=True):
    """LlamaStack's tool group: a name for an MCP server. Never holds a credential."""

    __tablename__ = "tool_groups"

    project: Mapped[str] = mapped_column(Project, primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sequence: Mapped[int]
    provider_id: Mapped[str]
    url: Mapped[str | None] = mapped_column(default=None)
    args: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
