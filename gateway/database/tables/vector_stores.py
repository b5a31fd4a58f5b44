"""Vector stores, their files and chunks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables.base import Base, Id, Project

__all__ = [
    "AttributeRow",
    "ChunkRow",
    "FileBatchFileRow",
    "FileBatchRow",
    "VectorStoreFileRow",
    "VectorStoreRow",
]


class VectorStoreRow(Base, kw_only=True):
    """``dimension`` and ``keyword`` are those of its index and never change."""

    __tablename__ = "vector_stores"
    __table_args__ = (Index("vector_stores_by_project", "project", "sequence"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    sequence: Mapped[int]
    name: Mapped[str | None]
    description: Mapped[str | None] = mapped_column(default=None)
    embedding_model: Mapped[str]
    dimension: Mapped[int]
    keyword: Mapped[bool]
    provider_id: Mapped[str] = mapped_column(String(120))
    last_active_at: Mapped[int] = mapped_column(index=True)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)
    expires_after_days: Mapped[int | None] = mapped_column(default=None)
    expires_at: Mapped[int | None] = mapped_column(default=None, index=True)
    deleted_at: Mapped[int | None] = mapped_column(default=None)


class FileBatchRow(Base, kw_only=True):
    __tablename__ = "file_batches"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    store_id: Mapped[str] = mapped_column(
        Id, ForeignKey("vector_stores.id", ondelete="CASCADE"), index=True
    )
    sequence: Mapped[int]
    cancelled_at: Mapped[int | None] = mapped_column(default=None)


class VectorStoreFileRow(Base, kw_only=True):
    """A file in a vector store; its ``id`` is the gateway's own, callers name it by ``file_id``.

    Chunks that were inserted ready-made belong to a row without ``file_id`` whose ``document_id``
    is the caller's. ``status`` is in_progress, completed, failed or cancelled. ``attempt`` counts
    the workers that took it up: a worker's last word counts only if it is still its turn.
    """

    __tablename__ = "vector_store_files"
    __table_args__ = (
        Index("vector_store_files_by_store", "store_id", "sequence"),
        Index("vector_store_files_by_file", "file_id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    store_id: Mapped[str] = mapped_column(Id, ForeignKey("vector_stores.id", ondelete="CASCADE"))
    sequence: Mapped[int]
    file_id: Mapped[str | None] = mapped_column(Id)
    document_id: Mapped[str | None] = mapped_column(default=None)
    filename: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(String(20), default="in_progress")
    error_code: Mapped[str | None] = mapped_column(String(40), default=None)
    error_message: Mapped[str | None] = mapped_column(default=None)
    chunking: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """OpenAI's ``chunking_strategy``, resolved: ``{"type": "static", "static": {…}}`` …"""
    attributes: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    usage_bytes: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    tries: Mapped[int] = mapped_column(default=0)
    """Attempts that count against ``ingestion.max_attempts``: not those that a shutdown ended."""
    touched_at: Mapped[int] = mapped_column(default=0)
    """When a worker last showed that it has it; for finding one whose job is gone."""
    traceparent: Mapped[str | None] = mapped_column(String(64), default=None)
    """Of the request that attached it; the work on it links to that trace."""
    finished_at: Mapped[int | None] = mapped_column(default=None)
    deleted_at: Mapped[int | None] = mapped_column(default=None)


class FileBatchFileRow(Base, kw_only=True):
    """A batch's claim to a file in its store; a later batch may name the same file again."""

    __tablename__ = "file_batch_files"

    batch_id: Mapped[str] = mapped_column(
        Id, ForeignKey("file_batches.id", ondelete="CASCADE"), primary_key=True
    )
    attachment_id: Mapped[str] = mapped_column(
        Id, ForeignKey("vector_store_files.id", ondelete="CASCADE"), primary_key=True, index=True
    )


# While it is there, a file is in a store once.
Index(
    "vector_store_files_once",
    VectorStoreFileRow.store_id,
    VectorStoreFileRow.file_id,
    unique=True,
    sqlite_where=VectorStoreFileRow.deleted_at.is_(None),
    postgresql_where=VectorStoreFileRow.deleted_at.is_(None),
)
Index(
    "vector_store_documents_once",
    VectorStoreFileRow.store_id,
    VectorStoreFileRow.document_id,
    unique=True,
    sqlite_where=VectorStoreFileRow.deleted_at.is_(None),
    postgresql_where=VectorStoreFileRow.deleted_at.is_(None),
)


class AttributeRow(Base, kw_only=True):
    """One attribute of a file in a store, in a form that SQL can compare. One value is set."""

    __tablename__ = "vector_store_file_attributes"
    __table_args__ = (
        Index("attributes_by_text", "store_id", "key", "text"),
        Index("attributes_by_number", "store_id", "key", "number"),
    )

    attachment_id: Mapped[str] = mapped_column(
        Id, ForeignKey("vector_store_files.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(256), primary_key=True)
    store_id: Mapped[str] = mapped_column(Id)
    text: Mapped[str | None] = mapped_column(String(2048), default=None)
    number: Mapped[float | None] = mapped_column(default=None)
    boolean: Mapped[bool | None] = mapped_column(default=None)


class ChunkRow(Base, kw_only=True):
    """A chunk. It counts only while its file in the store is ``completed`` and not deleted."""

    __tablename__ = "chunks"
    __table_args__ = (
        Index("chunks_by_attachment", "attachment_id", "position"),
        Index("chunks_by_digest", "project", "digest"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Project)
    store_id: Mapped[str] = mapped_column(Id)
    attachment_id: Mapped[str] = mapped_column(
        Id, ForeignKey("vector_store_files.id", ondelete="CASCADE")
    )
    position: Mapped[int]
    text: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 of the embedding model and of the text that was embedded."""
    tokens: Mapped[int]
    headings: Mapped[list[Any]] = mapped_column(default_factory=list)
    pages: Mapped[list[Any]] = mapped_column(default_factory=list)
    start: Mapped[int | None] = mapped_column(default=None)
    end: Mapped[int | None] = mapped_column(default=None)
    context: Mapped[str | None] = mapped_column(default=None)
    """What a model wrote about the chunk's place in its document; embedded with the text."""
    external_id: Mapped[str | None] = mapped_column(default=None)
    """The caller's id of a chunk that was inserted ready-made."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)
    """The caller's metadata of such a chunk."""
