"""Vector stores, their files and batches of files, as requests and answers have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "AttachFile",
    "AutoChunking",
    "BatchFile",
    "ChunkingStrategy",
    "ContextualChunking",
    "ContextualSizes",
    "CreateFileBatch",
    "CreateVectorStore",
    "Deleted",
    "ExpiresAfter",
    "FileBatchObject",
    "FileCounts",
    "FileStatus",
    "LastError",
    "StaticChunking",
    "StaticSizes",
    "UpdateStoreFile",
    "UpdateVectorStore",
    "VectorStoreFileObject",
    "VectorStoreObject",
]

MAX_BATCH_FILES = 2000
FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]
FileId = Annotated[str, Meta(min_length=1, max_length=80)]
ChunkSize = Annotated[int, Meta(ge=100, le=4096)]
Overlap = Annotated[int, Meta(ge=0, le=4096)]
ShortText = Annotated[str, Meta(max_length=512)]


class StaticSizes(Struct, frozen=True, kw_only=True):
    """In tokens. The overlap may be half of the size at most."""

    max_chunk_size_tokens: ChunkSize = 800
    chunk_overlap_tokens: Overlap = 400


class ContextualSizes(Struct, frozen=True, kw_only=True):
    """LlamaStack's: a chat model writes a line of context for each chunk.

    ``context_prompt`` has the placeholders ``{{WHOLE_DOCUMENT}}`` and, after it,
    ``{{CHUNK_CONTENT}}``.
    """

    model_id: Annotated[str, Meta(min_length=1)] | None = None
    context_prompt: Annotated[str, Meta(max_length=20_000)] | None = None
    max_chunk_size_tokens: ChunkSize = 700
    chunk_overlap_tokens: Overlap = 400
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] | None = None
    """For each call of the model."""
    max_concurrency: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Calls at once."""


class AutoChunking(Struct, frozen=True, tag_field="type", tag="auto"):
    """The gateway's choice: chunks of 800 tokens that overlap by 400."""


class StaticChunking(Struct, frozen=True, tag_field="type", tag="static"):
    static: StaticSizes


class ContextualChunking(Struct, frozen=True, tag_field="type", tag="contextual"):
    contextual: ContextualSizes


ChunkingStrategy = AutoChunking | StaticChunking | ContextualChunking


class ExpiresAfter(Struct, frozen=True, kw_only=True):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class CreateVectorStore(Struct, frozen=True, kw_only=True):
    """The fields from ``embedding_model`` on are LlamaStack's; all but the last may also be in
    ``metadata``.
    """

    name: ShortText | None = None
    description: ShortText | None = None
    file_ids: Annotated[list[FileId], Meta(max_length=MAX_BATCH_FILES)] | None = None
    chunking_strategy: ChunkingStrategy | None = None
    """Of ``file_ids``; a file that is attached later brings its own."""
    expires_after: ExpiresAfter | None = None
    metadata: dict[str, Any] | None = None
    embedding_model: str | None = None
    embedding_dimension: int | str | None = None
    provider_id: Annotated[str, Meta(min_length=1, max_length=120)] | None = None
    provider_vector_store_id: (
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)")] | None
    ) = None
    """The id that the store is to have."""


class UpdateVectorStore(Struct, frozen=True, kw_only=True):
    """What isn't there stays; ``metadata`` is replaced as a whole."""

    name: ShortText | UnsetType | None = UNSET
    expires_after: ExpiresAfter | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class AttachFile(Struct, frozen=True, kw_only=True):
    file_id: FileId
    attributes: dict[str, Any] | None = None
    chunking_strategy: ChunkingStrategy | None = None


class UpdateStoreFile(Struct, frozen=True, kw_only=True):
    """The attributes as they are to be, all of them."""

    attributes: dict[str, Any] | None


class BatchFile(AttachFile, frozen=True, kw_only=True):
    """A file of a batch with settings of its own."""


class CreateFileBatch(Struct, frozen=True, kw_only=True):
    """Either ``file_ids``, which share ``attributes`` and ``chunking_strategy``, or ``files``."""

    file_ids: Annotated[list[FileId], Meta(max_length=MAX_BATCH_FILES)] | None = None
    files: Annotated[list[BatchFile], Meta(max_length=MAX_BATCH_FILES)] | None = None
    attributes: dict[str, Any] | None = None
    chunking_strategy: ChunkingStrategy | None = None


class FileCounts(Struct, frozen=True, kw_only=True):
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    total: int = 0


class VectorStoreObject(Struct, frozen=True, kw_only=True):
    """The two fields on the embedding are the gateway's own; OpenAI's clients pass them by."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: ExpiresAfter | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]
    embedding_model: str
    embedding_dimension: int


class LastError(Struct, frozen=True, kw_only=True):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class VectorStoreFileObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: FileStatus
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, str | int | float | bool]
    chunking_strategy: dict[str, Any]


class FileBatchObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: FileStatus
    file_counts: FileCounts


class Deleted(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    deleted: bool = True
