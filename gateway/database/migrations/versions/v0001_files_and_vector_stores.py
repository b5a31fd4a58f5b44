"""Files and vector stores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=40), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("files_by_project", "files", ["project", "sequence"], unique=False)
    op.create_index("ix_files_expires_at", "files", ["expires_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("jobs_due", "jobs", ["due_at"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=40), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("file_expires_after", sa.BigInteger(), nullable=True),
        sa.Column("file_id", sa.String(length=80), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"], unique=False)
    op.create_index("ix_uploads_project", "uploads", ["project"], unique=False)
    op.create_table(
        "vector_stores",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("embedding_model", sa.Text(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("keyword", sa.Boolean(), nullable=False),
        sa.Column("provider_id", sa.String(length=120), nullable=False),
        sa.Column("last_active_at", sa.BigInteger(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("expires_after_days", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_vector_stores_expires_at", "vector_stores", ["expires_at"], unique=False)
    op.create_index(
        "ix_vector_stores_last_active_at", "vector_stores", ["last_active_at"], unique=False
    )
    op.create_index(
        "vector_stores_by_project", "vector_stores", ["project", "sequence"], unique=False
    )
    op.create_table(
        "file_batches",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("store_id", sa.String(length=80), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["store_id"], ["vector_stores.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_file_batches_store_id", "file_batches", ["store_id"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("upload_id", sa.String(length=80), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"], unique=False)
    op.create_table(
        "vector_store_files",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("store_id", sa.String(length=80), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("file_id", sa.String(length=80), nullable=True),
        sa.Column("document_id", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("chunking", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("usage_bytes", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
        sa.Column("traceparent", sa.String(length=64), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["store_id"], ["vector_stores.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "vector_store_documents_once",
        "vector_store_files",
        ["store_id", "document_id"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("vector_store_files_by_file", "vector_store_files", ["file_id"], unique=False)
    op.create_index(
        "vector_store_files_by_store", "vector_store_files", ["store_id", "sequence"], unique=False
    )
    op.create_index(
        "vector_store_files_once",
        "vector_store_files",
        ["store_id", "file_id"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "chunks",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("project", sa.String(length=120), nullable=False),
        sa.Column("store_id", sa.String(length=80), nullable=False),
        sa.Column("attachment_id", sa.String(length=80), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("headings", sa.JSON(), nullable=False),
        sa.Column("pages", sa.JSON(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=True),
        sa.Column("end", sa.BigInteger(), nullable=True),
        sa.Column("context", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["attachment_id"], ["vector_store_files.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("chunks_by_attachment", "chunks", ["attachment_id", "position"], unique=False)
    op.create_index("chunks_by_digest", "chunks", ["project", "digest"], unique=False)
    op.create_table(
        "file_batch_files",
        sa.Column("batch_id", sa.String(length=80), nullable=False),
        sa.Column("attachment_id", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["attachment_id"], ["vector_store_files.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["batch_id"], ["file_batches.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "attachment_id"),
    )
    op.create_index(
        "ix_file_batch_files_attachment_id", "file_batch_files", ["attachment_id"], unique=False
    )
    op.create_table(
        "vector_store_file_attributes",
        sa.Column("attachment_id", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("store_id", sa.String(length=80), nullable=False),
        sa.Column("text", sa.String(length=2048), nullable=True),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("boolean", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["attachment_id"], ["vector_store_files.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attachment_id", "key"),
    )
    op.create_index(
        "attributes_by_number",
        "vector_store_file_attributes",
        ["store_id", "key", "number"],
        unique=False,
    )
    op.create_index(
        "attributes_by_text",
        "vector_store_file_attributes",
        ["store_id", "key", "text"],
        unique=False,
    )
