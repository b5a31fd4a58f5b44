"""The process: where it listens, what it takes in, what is observed."""

from __future__ import annotations

from typing import Literal

from gateway.settings.section import NonNegativeFloat, Port, PositiveFloat, PositiveInt, Section


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
    drain_seconds: NonNegativeFloat = 0.0
    """How long new requests are still served after SIGTERM, while /readyz says no: as long as it
    takes whoever sends them to see that and send them elsewhere."""
    shutdown_grace_seconds: PositiveInt = 30
    """How long running requests may take to end after that."""


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


class TelemetrySettings(Section, frozen=True):
    """What is observed. Exporters are set by the standard ``OTEL_*`` variables."""

    service_name: str = "understudy"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    access_log: bool = False
    """One log line for each request; failures of a model server are logged in any case."""
