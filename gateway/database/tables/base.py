"""What all tables have in common."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, String, Text
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass

__all__ = ["Base", "Id", "Project"]

Id = String(80)
Project = String(120)


class Base(MappedAsDataclass, DeclarativeBase):
    """What all rows have in common: they are made with keywords."""

    type_annotation_map = {int: BigInteger, dict[str, Any]: JSON, list[Any]: JSON, str: Text}  # noqa: RUF012  (SQLAlchemy's way)
