"""What ``/v1/usage`` answers: OpenAI's page of buckets, with a few fields more."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["UsageBucket", "UsagePage", "UsageResult"]


class UsageResult(Struct, frozen=True, kw_only=True):
    """What one group used. What usage isn't grouped by is null."""

    object: Literal["organization.usage.completions.result"] = (
        "organization.usage.completions.result"
    )
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    num_model_requests: int
    num_failed_requests: int
    num_estimated_requests: int
    """Requests that broke off, whose tokens are an estimate."""
    project_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    operation: str | None = None
    user_id: str | None = None
    batch: bool | None = None


class UsageBucket(Struct, frozen=True, kw_only=True):
    """Times are in seconds since the epoch; the end is not part of it."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[UsageResult]


class UsagePage(Struct, frozen=True, kw_only=True):
    object: Literal["page"] = "page"
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None
