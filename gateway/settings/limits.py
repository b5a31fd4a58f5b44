"""How much is taken in, asked for and kept."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.settings.section import PositiveInt, Section

LIMITS = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "tokens_per_month",
)
"""What a rule may limit."""

NameOrStar = Annotated[str, Meta(min_length=1)]


class LimitRuleSettings(Section, frozen=True):
    """Limits of whatever the three names choose.

    A name that is left out isn't looked at, ``"*"`` is each one by itself, and anything else is
    that one: ``LimitRuleSettings(project="*", model="granite", requests_per_minute=60)`` lets each
    project ask granite 60 times a minute.
    """

    project: NameOrStar | None = None
    key: NameOrStar | None = None
    """An API key's id (``key_…``)."""
    model: NameOrStar | None = None
    """A model's id, not an alias."""
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    """Input and output together."""
    concurrent_requests: PositiveInt | None = None
    tokens_per_month: PositiveInt | None = None
    """In a calendar month, UTC."""


class QuotaSettings(Section, frozen=True):
    """How much one project may keep, or (``"*"``) each that isn't named."""

    project: NameOrStar = "*"
    max_files: PositiveInt | None = None
    max_file_bytes_total: PositiveInt | None = None
    """Of all its files together."""
    max_vector_stores: PositiveInt | None = None


class LimitSettings(Section, frozen=True):
    """Bounds on what is taken in and kept."""

    max_body_bytes: PositiveInt = 64 * 1024 * 1024
    max_answer_bytes: PositiveInt = 256 * 1024 * 1024
    """The largest answer of a model server that is not a stream."""
    max_upstream_connections: PositiveInt = 4096
    """For each model server; past it callers get 503 with retry-after."""
    max_file_bytes: PositiveInt = 512 * 1024 * 1024
    """The largest file that may be uploaded at once."""
    max_upload_bytes: PositiveInt = 8 * 1024**3
    """The largest file that may be uploaded in parts."""
    max_concurrent_uploads: PositiveInt = 64
    """For each process; past it callers get 429 with retry-after."""
    store: str = "database"
    """What counts, for all replicas: ``database``, ``memory`` (each process for itself) or
    ``redis://host:port/0``."""
    on_store_failure: Literal["open", "closed"] = "open"
    """Whether requests pass uncounted or are refused with 503 while ``store`` is away."""
    requests_per_minute: PositiveInt | None = None
    """For each project; this and the next three are a rule behind all others."""
    tokens_per_minute: PositiveInt | None = None
    concurrent_requests: PositiveInt | None = None
    tokens_per_month: PositiveInt | None = None
    rules: list[LimitRuleSettings] = field(default_factory=list)
    """Limits of projects, keys and models."""
    quotas: list[QuotaSettings] = field(default_factory=list)
    """How much projects may keep."""
