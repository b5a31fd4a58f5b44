"""Every setting, one class per concern.

``gateway.configuration`` reads them from a file and the environment.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

ModelKind = Literal["chat", "embedding", "rerank", "moderation"]
Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveInt = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]


class SettingsError(ValueError):
    """A setting is wrong. The message names it as ``section.key``."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; a misspelt key is an error, not a silent default."""


class ServerSettings(Section, frozen=True):
    """Where the gateway listens.

    ``ServerSettings(host="0.0.0.0", management_port=9090)`` keeps /livez, /readyz and /metrics
    off the public port.
    """

    host: str = "127.0.0.1"
    port: Port = 8321
    workers: PositiveInt = 1
    management_port: Port | None = None
    profile: Literal["openai", "llamastack"] = "openai"
    heartbeat_seconds: PositiveFloat = 15.0
    """A silent stream gets an SSE comment this often, so that proxies keep it open."""
    shutdown_grace_seconds: PositiveInt = 30
    """How long running requests may take to end after SIGTERM."""


class TimeoutSettings(Section, frozen=True):
    """Four limits on a call to a model server, in seconds.

    ``TimeoutSettings(connect=2, first_byte=120)``
    """

    connect: PositiveFloat = 5.0
    first_byte: PositiveFloat = 600.0
    """From the request until the first event of a stream, or the head of a plain answer."""
    idle: PositiveFloat = 120.0
    """The longest silence after that."""
    total: PositiveFloat = 3600.0


class BackendTimeoutSettings(Section, frozen=True):
    """The limits of one model server where they differ from those of ``timeouts``."""

    connect: PositiveFloat | None = None
    first_byte: PositiveFloat | None = None
    idle: PositiveFloat | None = None
    total: PositiveFloat | None = None

    def over(self, general: TimeoutSettings) -> TimeoutSettings:
        """These limits, and the general ones where none is given here."""
        return TimeoutSettings(
            connect=self.connect or general.connect,
            first_byte=self.first_byte or general.first_byte,
            idle=self.idle or general.idle,
            total=self.total or general.total,
        )


class BackendSettings(Section, frozen=True):
    """One model server, and how to reach it.

    ``BackendSettings(url="https://vllm/v1", ca_file="/etc/ca.pem", api_key_file="/run/token")``
    """

    url: str
    model: str | None = None
    """The name the server itself uses, where it differs from the model's id."""
    weight: PositiveInt = 1
    priority: Annotated[int, Meta(ge=0)] = 0
    """Backends of the lowest number are used; the next number only when none of those works."""
    api_key: str | None = None
    api_key_file: str | None = None
    """A file with the bearer token, read again when it changes (a mounted Secret)."""
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    forward_headers: tuple[str, ...] = ()
    """More request headers that may travel to this server, e.g. ``[authorization]``."""
    timeouts: BackendTimeoutSettings = field(default_factory=BackendTimeoutSettings)


class ModelSettings(Section, frozen=True):
    """A model under the name that clients use.

    ``ModelSettings(id="granite", aliases=["gpt-4o"], backends=[BackendSettings(url=…)])``
    """

    id: str
    backends: Annotated[list[BackendSettings], Meta(min_length=1)]
    aliases: list[str] = field(default_factory=list)
    kind: ModelKind | None = None
    """Found out from the server when left out."""


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


class DocumentSettings(Section, frozen=True):
    """How documents become text.

    ``DocumentSettings(converter="docling-serve", url="http://docling:5001")``
    """

    converter: Literal["docling", "docling-serve"] = "docling"
    models_path: str | None = None
    """For ``docling``: a folder with its models (from ``docling-tools models download``). Without
    one a light layout is used that needs no models."""
    ocr: bool = False
    """Read scanned pages. Needs the extra ``ocr``, or docling-serve with its models."""
    url: str | None = None
    """For ``docling-serve``."""
    api_key: str | None = None
    ca_file: str | None = None
    processes: PositiveInt = 1
    """Converters that run at once, each a process of its own."""
    process_jobs: PositiveInt = 100
    """A converter process is replaced after so many documents."""
    process_memory_bytes: PositiveInt = 4 * 1024**3
    """The most memory that a converter process may use."""


class EmbeddingSettings(Section, frozen=True):
    """How chunks and queries become vectors."""

    default_model: str | None = None
    """Where a store names none; the only embedding model there is when left out."""
    batch_size: PositiveInt = 64
    """Chunks in one request to the embedding model."""
    concurrency: PositiveInt = 4
    """Requests to the embedding model at once, for each process: so many of queries and so many of
    files."""


class IngestionSettings(Section, frozen=True):
    """How files get into vector stores.

    ``IngestionSettings(embedded_worker=False)`` leaves the work to ``understudy worker``.
    """

    attach_wait_seconds: Annotated[float, Meta(ge=0)] = 5.0
    """How long attaching a file waits for it to be completed before it says ``in_progress``."""
    embedded_worker: bool = True
    """Whether the server does the work itself."""
    workers: PositiveInt = 2
    """Files in work at once, for each process."""
    lease_seconds: PositiveFloat = 30.0
    """A file whose worker has died is taken up by another one after so long."""
    max_attempts: PositiveInt = 5
    """A file whose worker dies this often, or whose converter, embedding model or index fails so
    often, is failed."""
    timeout_seconds: PositiveFloat = 600.0
    """For the conversion of one file."""
    max_pages: PositiveInt = 2000
    max_file_bytes: PositiveInt = 128 * 1024 * 1024
    """The largest file that is converted; text may be as large as a file may be."""
    max_unzipped_bytes: PositiveInt = 1024 * 1024 * 1024
    """What an office document or another zip may unpack to."""
    max_chunks: PositiveInt = 100_000
    """In one file."""


class SearchSettings(Section, frozen=True):
    """Defaults of searches in vector stores."""

    default_mode: Literal["vector", "keyword", "hybrid"] = "vector"
    rerank_model: str | None = None
    """For ``ranker: neural`` without a ``model``; the only rerank model there is when left out."""
    rewrite_model: str | None = None
    """The chat model for ``rewrite_query``; without one such a search is refused."""


class RetentionSettings(Section, frozen=True):
    """When things that have expired or are left over go."""

    interval_seconds: PositiveFloat = 60.0
    upload_seconds: PositiveInt = 3600
    """How long an upload in parts may take."""
    leftover_seconds: PositiveInt = 24 * 3600
    """How old the unfinished writes of dead processes are before they are swept away."""


class TelemetrySettings(Section, frozen=True):
    """What is observed. Exporters are set by the standard ``OTEL_*`` variables."""

    service_name: str = "understudy"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    access_log: bool = False
    """One log line for each request; failures of a model server are logged in any case."""


class Settings(Section, frozen=True):
    """All of it. ``load_settings`` makes one."""

    server: ServerSettings = field(default_factory=ServerSettings)
    models: list[ModelSettings] = field(default_factory=list)
    discover: list[str | BackendSettings] = field(default_factory=list)
    """Model servers whose models are found by asking ``/v1/models``."""
    discover_interval_seconds: PositiveFloat = 10.0
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    vectors: VectorSettings = field(default_factory=VectorSettings)
    documents: DocumentSettings = field(default_factory=DocumentSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    ingestion: IngestionSettings = field(default_factory=IngestionSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    data_dir: str = "./understudy-data"
    """The only folder that the gateway writes to."""


def backend_of(entry: str | BackendSettings) -> BackendSettings:
    """A discovered server given as a bare URL or with its settings."""
    return BackendSettings(url=entry) if isinstance(entry, str) else entry


def is_header_value(text: str) -> bool:
    """Whether an HTTP header can carry this text."""
    return text.isascii() and text.isprintable()
