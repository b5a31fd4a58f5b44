"""Files and uploads."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = ["FileRow", "UploadPartRow", "UploadRow"]


class FileRow(Base, kw_only=True):
    """A file of the Files API. Its bytes lie under ``object_key`` in the object store."""

    __tablename__ = "files"
    __table_args__ = (Index("files_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(String(40))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str | None] = mapped_column(default=None)
    expires_at: Mapped[int | None] = mapped_column(default=None, index=True)
    deleted_at: Mapped[int | None] = mapped_column(default=None)

    @property
    def object_key(self) -> str:
        return f"{self.project}/files/{self.id}/content"

    @property
    def document_key(self) -> str:
        """Where the structured JSON of its conversion is kept."""
        return f"{self.project}/files/{self.id}/document.json"


class UploadRow(Base, kw_only=True):
    """An upload in parts. ``status`` is pending, completed, cancelled or expired."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project, index=True)
    sequence: Mapped[int]
    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(String(40))
    bytes: Mapped[int]
    """As announced."""
    media_type: Mapped[str]
    status: Mapped[str] = mapped_column(String(20), default="pending")
    expires_at: Mapped[int] = mapped_column(index=True)
    file_expires_after: Mapped[int | None] = mapped_column(default=None)
    """In seconds, of the file that it becomes."""
    file_id: Mapped[str | None] = mapped_column(Id, default=None)


class UploadPartRow(Base, kw_only=True):
    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    upload_id: Mapped[str] = mapped_column(
        Id, ForeignKey("uploads.id", ondelete="CASCADE"), index=True
    )
    sequence: Mapped[int]
    bytes: Mapped[int]

    @property
    def object_key(self) -> str:
        return f"{self.project}/uploads/{self.upload_id}/{self.id}"
