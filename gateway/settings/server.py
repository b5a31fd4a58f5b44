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


class TelemetrySettings(Section, frozen=True):
    """What is observed. Exporters are set by the standard ``OTEL_*`` variables."""

    service_name: str = "understudy"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    access_log: bool = False
    """One log line for each request; failures of a model server are logged in any case."""
