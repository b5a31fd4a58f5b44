"""Where state is kept, and for how long."""

from __future__ import annotations

from typing import Literal

from gateway.settings.section import PositiveFloat, PositiveInt, Section


class DatabaseSettings(Section, frozen=True):
    """Where metadata is kept.

    ``DatabaseSettings(url="postgresql+asyncpg://understudy:secret@postgres/understudy")``
    """

    url: str | None = None
    """``sqlite+aiosqlite:///FILE`` or ``postgresql+asyncpg://…``; SQLite under ``data_dir`` when
    left out."""
    pool_size: PositiveInt = 10
    """Connections of each process to PostgreSQL."""
    ca_file: str | None = None
    """A private authority that PostgreSQL's certificate is checked against; asks for TLS."""


class ObjectSettings(Section, frozen=True):
    """Where the bytes of files are kept.

    ``ObjectSettings(kind="minio", endpoint="minio:9000", access_key=…, secret_key=…)``
    """

    kind: Literal["disk", "minio"] = "disk"
    path: str | None = None
    """For ``disk``: the folder; ``objects`` under ``data_dir`` when left out."""
    endpoint: str | None = None
    """For ``minio``: ``host:port`` of any S3-compatible server."""
    access_key: str | None = None
    secret_key: str | None = None
    bucket: str = "llama-files"
    """Made when it is missing and may be made."""
    region: str | None = None
    secure: bool = True
    ca_file: str | None = None
    path_style: bool = True
    """``https://host/bucket/key`` instead of ``https://bucket.host/key``."""
    threads: PositiveInt = 16
    """How many reads and writes may run at once, in each process."""


class VectorSettings(Section, frozen=True):
    """Where vectors are searched.

    ``VectorSettings(uri="https://milvus:19530", token="user:password", ca_file="/etc/ca.pem")``
    """

    uri: str | None = None
    """A Milvus server's URL, or a folder for Milvus Lite; ``milvus-lite`` under ``data_dir`` when
    left out."""
    token: str | None = None
    """``user:password`` or an API key."""
    database: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    layout: Literal["per_store", "shared"] = "per_store"
    """One collection for each vector store, or one for all of a dimension with a partition key."""
    timeout_seconds: PositiveFloat = 30.0


class RetentionSettings(Section, frozen=True):
    """When things that have expired or are left over go."""

    interval_seconds: PositiveFloat = 60.0
    upload_seconds: PositiveInt = 3600
    """How long an upload in parts may take."""
    leftover_seconds: PositiveInt = 24 * 3600
    """How old the unfinished writes of dead processes are before they are swept away."""
    completion_seconds: PositiveInt | None = 30 * 24 * 3600
    """How long stored chat completions stay; ``None`` for as long as nobody deletes them."""
    usage_seconds: PositiveInt | None = 400 * 24 * 3600
    """How long usage stays readable; ``None`` for ever."""
    audit_seconds: PositiveInt | None = 400 * 24 * 3600
    """How long the audit log reaches back; ``None`` for ever."""
