"""A collector that keeps what it is sent by OTLP over HTTP, decoded.

with Collector() as collector:
    ... OTEL_EXPORTER_OTLP_ENDPOINT=collector.url ...
    [span] = collector.wait_for(lambda span: span.name == "llm_request")
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HOST = "127.0.0.1"


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it came: ids in hexadecimal, attributes as a plain mapping."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool
    start: int
    end: int


class Collector:
    """Listens on a loopback port in a thread of its own."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        self.metrics: list[Any] = []
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` takes."""
        return f"http://{HOST}:{self._server.server_port}"

    def wait_for(
        self, wanted: Callable[[CollectedSpan], bool], *, count: int = 1, within: float = 30
    ) -> list[CollectedSpan]:
        """The spans that are wanted, as soon as there are so many."""
        deadline = time.monotonic() + within
        while True:
            found = [span for span in list(self.spans) if wanted(span)]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                names = sorted({span.name for span in self.spans})
                raise AssertionError(
                    f"{len(found)} of {count} spans within {within} s; got {names}"
                )
            time.sleep(0.05)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path.endswith("/traces"):
                    collector.spans += _spans(body)
                elif self.path.endswith("/metrics"):
                    collector.metrics += _metrics(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _spans(body: bytes) -> list[CollectedSpan]:
    return [
        CollectedSpan(
            service=_attributes(group.resource.attributes).get("service.name", ""),
            name=span.name,
            kind=span.kind,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes=_attributes(span.attributes),
            failed=span.status.code == 2,
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
        )
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _metrics(body: bytes) -> list[Any]:
    return [
        metric
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
