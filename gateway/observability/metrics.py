"""Metrics, kept by ``prometheus_client`` under the names of the semantic conventions.

``/metrics`` renders them for Prometheus; :mod:`gateway.observability.otlp_metrics` pushes the same
numbers by OTLP. With several workers the files of prometheus_client's multiprocess mode add them
up (``PROMETHEUS_MULTIPROC_DIR``, set by ``understudy serve``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.observability import semconv
from gateway.observability.call import ModelCall
from gateway.observability.metric_names import label, prometheus_name
from gateway.observability.routing_metrics import RoutingMetrics

__all__ = ["CONTENT_TYPE", "Metrics", "label", "prometheus_name"]

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_NANOSECOND = 1e-9


class Metrics:
    """Every instrument, with the series that are in use kept at hand."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._http_duration = self._histogram(
            semconv.M_HTTP_DURATION,
            "s",
            "Duration of requests to the gateway.",
            [semconv.HTTP_METHOD, semconv.HTTP_ROUTE, semconv.HTTP_STATUS],
            semconv.HTTP_DURATION_BUCKETS,
        )
        call = [semconv.OPERATION, semconv.PROVIDER, semconv.REQUEST_MODEL, semconv.SERVER_ADDRESS]
        self._duration = self._histogram(
            semconv.M_DURATION,
            "s",
            "Duration of calls to model servers, streams to their end.",
            [*call, semconv.ERROR_TYPE],
            semconv.DURATION_BUCKETS,
        )
        self._tokens = self._histogram(
            semconv.M_TOKENS,
            "{token}",
            "Tokens of calls to model servers, where the server told.",
            [*call, semconv.TOKEN_TYPE],
            semconv.TOKEN_BUCKETS,
        )
        self._first_chunk = self._histogram(
            semconv.M_TIME_TO_FIRST_CHUNK,
            "s",
            "Time to the first event of a stream.",
            call,
            semconv.FIRST_CHUNK_BUCKETS,
        )
        self._mcp_duration = self._histogram(
            semconv.M_MCP_DURATION,
            "s",
            "Duration of requests to tool servers.",
            [semconv.MCP_METHOD, semconv.ERROR_TYPE],
            semconv.DURATION_BUCKETS,
        )
        self.active_requests = Gauge(
            prometheus_name(semconv.M_HTTP_ACTIVE, ""),
            "Requests in progress.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._connections = Gauge(
            prometheus_name(semconv.M_UPSTREAM_CONNECTIONS, ""),
            "Open connections to a model server, idle ones included.",
            [label(semconv.SERVER_ADDRESS), label(semconv.SERVER_PORT)],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._ingestion_duration = self._histogram(
            semconv.M_INGESTION_DURATION,
            "s",
            "Duration of attempts to bring a file into a vector store.",
            [semconv.INGESTION_STATUS],
            semconv.INGESTION_BUCKETS,
        )
        self._ingestion_wait = self._histogram(
            semconv.M_INGESTION_WAIT,
            "s",
            "Time from attaching a file until a worker takes it up.",
            [],
            semconv.INGESTION_BUCKETS,
        )
        self._ingestion_chunks = self._histogram(
            semconv.M_INGESTION_CHUNKS,
            "{chunk}",
            "Chunks of files that were completed, by where their vectors came from.",
            [semconv.CHUNK_SOURCE],
            semconv.CHUNK_BUCKETS,
        )
        self.active_ingestions = Gauge(
            prometheus_name(semconv.M_INGESTION_ACTIVE, ""),
            "Files in work.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._store_duration = self._histogram(
            semconv.M_STORE_DURATION,
            "s",
            "Time from a whole answer until its chat completion was stored, or was not.",
            [semconv.STORE_OUTCOME],
            semconv.STORE_BUCKETS,
        )
        self._batch_lines = self._histogram(
            semconv.M_BATCH_LINE_DURATION,
            "s",
            "Duration of lines of batches, with what they waited for and their retries.",
            [semconv.BATCH_LINE_OUTCOME],
            semconv.DURATION_BUCKETS,
        )
        self.active_batches = Gauge(
            prometheus_name(semconv.M_BATCH_ACTIVE, ""),
            "Batches in work.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.routing = RoutingMetrics(self.registry)
        self._http_series: dict[tuple[str, str, int], Any] = {}
        self._call_series: dict[tuple[str, str, str, str, str | None], _CallSeries] = {}

    def request_ended(self, method: str, route: str, status: int, nanoseconds: int) -> None:
        key = (method, route, status)
        series = self._http_series.get(key)
        if series is None:
            series = self._http_series[key] = self._http_duration.labels(method, route, status)
        series.observe(nanoseconds * _NANOSECOND)

    def call_ended(self, call: ModelCall) -> None:
        server = call.backend.server
        key = (call.operation.name, server.provider, call.model, server.host, call.error_type)
        series = self._call_series.get(key)
        if series is None:
            *labels, error_type = key
            series = self._call_series[key] = _CallSeries(
                self._duration.labels(*labels, error_type or ""),
                self._first_chunk.labels(*labels),
                self._tokens,
                labels,
            )
        assert call.ended is not None  # a call is counted when it is over
        series.duration.observe((call.ended - call.started) * _NANOSECOND)
        if call.stream and call.first_chunk is not None:
            series.first_chunk.observe((call.first_chunk - call.started) * _NANOSECOND)
        if call.usage is not None:
            if (count := call.usage.input) is not None:
                series.input_tokens.observe(count)
            if (count := call.usage.output) is not None:
                series.output_tokens.observe(count)

    def tool_server_answered(self, method: str, error_type: str | None, seconds: float) -> None:
        self._mcp_duration.labels(method, error_type or "").observe(seconds)

    def connections_changed(self, host: str, port: int, change: int) -> None:
        self._connections.labels(host, port).inc(change)

    def ingestion_began(self, waited: float) -> None:
        """A file is taken up for the first time, so many seconds after it was attached."""
        self._ingestion_wait.observe(waited)

    def ingestion_ended(self, status: str, seconds: float) -> None:
        """An attempt is over; ``status`` is the file's, ``retried`` or ``dropped``."""
        self._ingestion_duration.labels(status).observe(seconds)

    def chunks_indexed(self, *, embedded: int, reused: int) -> None:
        """A file is completed with so many new vectors and so many that were there already."""
        self._ingestion_chunks.labels("embedded").observe(embedded)
        self._ingestion_chunks.labels("reused").observe(reused)

    def completion_stored(self, outcome: str, seconds: float) -> None:
        """A chat completion was to be stored, and this became of it."""
        self._store_duration.labels(outcome).observe(seconds)

    def batch_line_ended(self, outcome: str, seconds: float) -> None:
        """A line of a batch is ``completed`` or ``failed``."""
        self._batch_lines.labels(outcome).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes; of all workers, where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # not typed there
            return generate_latest(registry)
        return generate_latest(self.registry)

    def _histogram(
        self, name: str, unit: str, help_text: str, labels: list[str], buckets: Iterable[float]
    ) -> Histogram:
        return Histogram(
            prometheus_name(name, unit),
            help_text,
            [label(one) for one in labels],
            buckets=tuple(buckets),
            registry=self.registry,
        )


class _CallSeries:
    """The series of one kind of call, looked up once."""

    __slots__ = ("duration", "first_chunk", "input_tokens", "output_tokens")

    def __init__(self, duration: Any, first_chunk: Any, tokens: Histogram, call: list[str]) -> None:
        self.duration = duration
        self.first_chunk = first_chunk
        self.input_tokens = tokens.labels(*call, "input")
        self.output_tokens = tokens.labels(*call, "output")
