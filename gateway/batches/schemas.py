"""A batch as OpenAI's clients know it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.files.schemas import ExpiresAfter

__all__ = [
    "OVER",
    "BatchError",
    "BatchErrors",
    "BatchObject",
    "BatchStatus",
    "BatchUsage",
    "CreateBatch",
    "InputTokensDetails",
    "OutputTokensDetails",
    "RequestCounts",
]

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
OVER = ("failed", "completed", "expired", "cancelled")
"""What a batch ends in."""


class CreateBatch(Struct, frozen=True, kw_only=True):
    """``idempotency_key`` is LlamaStack's; the header ``Idempotency-Key`` says the same."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=80)]
    endpoint: Annotated[str, Meta(max_length=100)]
    completion_window: Annotated[str, Meta(max_length=20)]
    metadata: dict[str, Any] | None = None
    output_expires_after: ExpiresAfter | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class BatchError(Struct, frozen=True):
    """What is wrong with the input; ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Struct, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


class InputTokensDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class OutputTokensDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class BatchUsage(Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchObject(Struct, frozen=True, kw_only=True):
    """OpenAI's ``Batch``. ``model`` is set where all lines name the same one."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
