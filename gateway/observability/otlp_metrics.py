"""The metrics of ``/metrics``, pushed by OTLP where ``OTEL_METRICS_EXPORTER`` asks for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

from gateway import __version__
from gateway.observability import semconv
from gateway.observability.metrics import label, prometheus_name
from gateway.observability.tracing import FLUSH_SECONDS

logger = logging.getLogger(__name__)

_UNITS = {
    semconv.M_HTTP_DURATION: "s",
    semconv.M_HTTP_ACTIVE: "{request}",
    semconv.M_DURATION: "s",
    semconv.M_TOKENS: "{token}",
    semconv.M_TIME_TO_FIRST_CHUNK: "s",
    semconv.M_UPSTREAM_CONNECTIONS: "{connection}",
    semconv.M_UPSTREAM_UP: "1",
    semconv.M_UPSTREAM_IN_FLIGHT: "{request}",
    semconv.M_UPSTREAM_STATE: "1",
    semconv.M_UPSTREAM_EJECTIONS: "{ejection}",
    semconv.M_RETRIES: "{request}",
    semconv.M_RETRIES_REFUSED: "{request}",
    semconv.M_RELOADS: "{reload}",
    semconv.M_RELOAD_FAILED: "1",
    semconv.M_INGESTION_DURATION: "s",
    semconv.M_INGESTION_WAIT: "s",
    semconv.M_INGESTION_CHUNKS: "{chunk}",
    semconv.M_INGESTION_ACTIVE: "{file}",
    semconv.M_STORE_DURATION: "s",
}
_NAMES = {prometheus_name(name, unit): name for name, unit in _UNITS.items()}
_LABELS = {
    label(name): name for name in vars(semconv).values() if isinstance(name, str) and "." in name
}


class MetricsPusher:
    """Pushes to the exporters every ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds, on a thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        resource: Resource,
        exporters: list[MetricExporter],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._registry = registry
        self._resource = resource
        self._exporters = exporters
        self._interval = int(environment.get("OTEL_METRIC_EXPORT_INTERVAL", "60000")) / 1000
        self._started = time.time_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-pusher", daemon=True)

    def start(self) -> None:
        if self._exporters:
            self._thread.start()

    def shutdown(self) -> None:
        """Push once more and end; takes ``FLUSH_SECONDS`` at most."""
        if self._exporters:
            self._stop.set()
            self._thread.join(FLUSH_SECONDS)
            for exporter in self._exporters:
                exporter.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._push()
        self._push()

    def _push(self) -> None:
        try:
            data = self.collect()
            for exporter in self._exporters:
                exporter.export(data)
        except Exception:  # this push is lost; the next one has all its numbers again
            logger.exception("The metrics could not be pushed")

    def collect(self) -> MetricsData:
        """Everything as OpenTelemetry's data model has it."""
        now = time.time_ns()
        metrics = [
            Metric(
                name=name,
                description=family.documentation,
                unit=_UNITS[name],
                data=self._data(family, now),
            )
            for family in self._registry.collect()
            if (name := _NAMES.get(family.name)) is not None
        ]
        scope = ScopeMetrics(
            scope=InstrumentationScope("understudy", __version__), metrics=metrics, schema_url=""
        )
        return MetricsData(
            resource_metrics=[
                ResourceMetrics(resource=self._resource, scope_metrics=[scope], schema_url="")
            ]
        )

    def _data(self, family: Family, now: int) -> Histogram | Gauge | Sum:
        if family.type == "histogram":
            return Histogram(
                data_points=list(self._histogram_points(family, now)),
                aggregation_temporality=AggregationTemporality.CUMULATIVE,
            )
        points = [
            NumberDataPoint(
                attributes=_attributes(sample.labels),
                start_time_unix_nano=self._started,
                time_unix_nano=now,
                value=sample.value,
            )
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        if family.type == "counter":
            return Sum(
                data_points=points,
                aggregation_temporality=AggregationTemporality.CUMULATIVE,
                is_monotonic=True,
            )
        return Gauge(data_points=points)

    def _histogram_points(self, family: Family, now: int) -> Iterable[HistogramDataPoint]:
        """Prometheus' cumulative buckets as OpenTelemetry's counts for each bucket."""
        series: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            point = series.setdefault(tuple(sorted(labels.items())), {"buckets": []})
            if sample.name.endswith("_bucket"):
                point["buckets"].append((float(sample.labels["le"]), int(sample.value)))
            elif sample.name.endswith("_sum"):
                point["sum"] = sample.value
        for key, point in series.items():
            bounds, cumulative = zip(*sorted(point["buckets"]), strict=True)
            counts = [
                count - before
                for count, before in zip(cumulative, (0, *cumulative[:-1]), strict=True)
            ]
            if cumulative[-1]:
                yield HistogramDataPoint(
                    attributes=_attributes(dict(key)),
                    start_time_unix_nano=self._started,
                    time_unix_nano=now,
                    count=cumulative[-1],
                    sum=point["sum"],
                    bucket_counts=counts,
                    explicit_bounds=list(bounds[:-1]),
                    # Prometheus keeps neither; OTLP may leave both out.
                    min=None,  # type: ignore[arg-type]
                    max=None,  # type: ignore[arg-type]
                )


def _attributes(labels: Mapping[str, str]) -> dict[str, Any]:
    """The conventions' names again; an empty label is an attribute that isn't there."""
    attributes: dict[str, Any] = {}
    for key, value in labels.items():
        if value != "":
            name = _LABELS.get(key, key)
            attributes[name] = (
                int(value) if name in (semconv.HTTP_STATUS, semconv.SERVER_PORT) else value
            )
    return attributes
