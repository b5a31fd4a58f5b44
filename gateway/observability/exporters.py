"""Exporters, as the standard ``OTEL_*`` variables ask for them.

Nothing is exported, and nothing warns, while they are unset: ``OTEL_TRACES_EXPORTER`` and
``OTEL_METRICS_EXPORTER`` are ``otlp`` by default only where an OTLP endpoint is named.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    Resource,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import set_tracer_provider

from gateway import __version__
from gateway.observability import otlp_spans
from gateway.observability.tracing import Tracing
from gateway.settings import SettingsError

Signal = Literal["traces", "metrics"]

QUEUE_SPANS = 8192
"""How many finished spans may wait for the exporter, unless ``OTEL_BSP_MAX_QUEUE_SIZE`` says.
The SDK's own 2048 is a tenth of a second of a busy gateway."""

_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def build_tracing(resource: Resource, environment: Mapping[str, str] = os.environ) -> Tracing:
    """The tracing that the environment asks for, registered as OpenTelemetry's global one."""
    otlp_spans.install()
    provider = TracerProvider(resource=resource)
    exporters = load_exporters("traces", environment)
    processors = [_processor(exporter, environment) for exporter in exporters]
    for processor in processors:
        provider.add_span_processor(processor)
    if processors:
        set_tracer_provider(provider)
    return Tracing(
        provider=provider, processors=processors, exporters=exporters, environment=environment
    )


def resource_for(service_name: str, environment: Mapping[str, str] = os.environ) -> Resource:
    """What the telemetry is about; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win.

    Made once in a process: traces and metrics are joined by its instance id.
    """
    attributes: dict[str, Any] = {
        SERVICE_VERSION: __version__,
        SERVICE_INSTANCE_ID: str(uuid.uuid4()),
    }
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        attributes[SERVICE_NAME] = service_name
    return Resource.create(attributes)


def load_exporters(signal: Signal, environment: Mapping[str, str] = os.environ) -> list[Any]:
    """The exporters named by ``OTEL_TRACES_EXPORTER`` or ``OTEL_METRICS_EXPORTER``.

    Raises ``SettingsError`` for a name that isn't installed.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    upper = signal.upper()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    names = environment.get(f"OTEL_{upper}_EXPORTER") or default
    return [
        _load(signal, name.strip(), environment)
        for name in names.split(",")
        if name.strip() not in ("", "none", "prometheus")
    ]


def _load(signal: Signal, name: str, environment: Mapping[str, str]) -> Any:
    if name == "otlp":
        protocol = (
            environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
            or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        if protocol not in _PROTOCOLS:
            raise SettingsError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not one of {', '.join(_PROTOCOLS)}"
            )
        name = _PROTOCOLS[protocol]
    found = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    if not found:
        hint = " (pip install 'understudy-gateway[grpc]')" if name == "otlp_proto_grpc" else ""
        raise SettingsError(f"OTEL_{signal.upper()}_EXPORTER: no exporter {name!r}{hint}")
    return next(iter(found)).load()()


def _processor(exporter: Any, environment: Mapping[str, str]) -> SpanProcessor:
    if type(exporter).__name__ == "ConsoleSpanExporter":
        return SimpleSpanProcessor(exporter)
    queue = None if "OTEL_BSP_MAX_QUEUE_SIZE" in environment else QUEUE_SPANS
    return BatchSpanProcessor(exporter, max_queue_size=queue)
