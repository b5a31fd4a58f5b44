"""The numbers of `/metrics` in OpenTelemetry's data model, under the conventions' names."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from gateway.app import create_app
from gateway.observability.metrics import Metrics
from gateway.observability.otlp_metrics import MetricsPusher
from gateway.settings import Settings


class Kept(MetricExporter):
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[MetricsData] = []
        self.over = False

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        self.pushed.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, *_: Any) -> bool:
        return True

    def shutdown(self, *_: Any, **__: Any) -> None:
        self.over = True


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def pusher(metrics: Metrics, *exporters: MetricExporter, interval: int = 60000) -> MetricsPusher:
    environment = {"OTEL_METRIC_EXPORT_INTERVAL": str(interval)}
    return MetricsPusher(
        metrics.registry, Resource({"service.name": "x"}), list(exporters), environment
    )


def collected(metrics: Metrics) -> dict[str, Any]:
    [resource] = pusher(metrics).collect().resource_metrics
    [scope] = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def test_a_histogram_has_counts_for_each_bucket(metrics):
    """Prometheus' are cumulative, OpenTelemetry's are not; the sum of them is the count."""
    for milliseconds in (1, 7, 7, 700, 90_000):
        metrics.request_ended("POST", "/v1/chat/completions", 200, milliseconds * 1_000_000)
    metric = collected(metrics)["http.server.request.duration"]
    [point] = metric.data.data_points
    assert metric.unit == "s"
    assert point.count == 5
    assert point.sum == pytest.approx(90.715)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    counts = dict(zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {
        0.005: 1,
        0.01: 2,
        0.75: 1,
        float("inf"): 1,
    }
    assert point.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
    }


def test_series_stay_apart(metrics):
    """One point for each set of labels."""
    metrics.request_ended("POST", "/a", 200, 1)
    metrics.request_ended("POST", "/a", 503, 1)
    metrics.request_ended("GET", "/b", 200, 1)
    points = collected(metrics)["http.server.request.duration"].data.data_points
    assert sorted(point.attributes["http.response.status_code"] for point in points) == [
        200,
        200,
        503,
    ]


def test_gauges_have_their_value_and_labels(metrics):
    """An address is a text, a port a number."""
    metrics.routing.answered(SimpleNamespace(host="vllm", port=8000), up=True)
    metrics.connections_changed("vllm", 8000, 1)
    metrics.connections_changed("vllm", 8000, 1)
    metrics.connections_changed("vllm", 8000, -1)
    found = collected(metrics)
    for name in ("understudy.upstream.up", "understudy.upstream.connections"):
        [point] = found[name].data.data_points
        assert point.value == 1
        assert point.attributes == {"server.address": "vllm", "server.port": 8000}


def test_counters_are_sums_that_only_grow(metrics):
    """Under their own name: `_total` is Prometheus' way of writing it."""
    metrics.routing.retried("m", "upstream_unreachable")
    metrics.routing.retried("m", "upstream_unreachable")
    data = collected(metrics)["understudy.retries"].data
    assert data.is_monotonic
    [point] = data.data_points
    assert point.value == 2
    assert point.attributes == {
        "gen_ai.request.model": "m",
        "error.type": "upstream_unreachable",
    }


def test_the_sdk_s_encoder_takes_it(metrics):
    """And leaves out what isn't known, such as the largest value."""
    metrics.request_ended("POST", "/a", 200, 1)
    encoded = encode_metrics(pusher(metrics).collect())
    found = {metric.name: metric for metric in encoded.resource_metrics[0].scope_metrics[0].metrics}
    [point] = found["http.server.request.duration"].histogram.data_points
    assert point.count == 1
    assert not point.HasField("max")
    assert not point.HasField("min")
    assert point.start_time_unix_nano <= point.time_unix_nano


def test_it_pushes_again_and_again_and_once_at_the_end(metrics):
    """At its interval, and what came since then when it ends."""
    exporter = Kept()
    running = pusher(metrics, exporter, interval=20)
    running.start()
    deadline = time.monotonic() + 60
    while len(exporter.pushed) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = len(exporter.pushed)
    running.shutdown()
    assert len(exporter.pushed) > before
    assert exporter.over


def test_without_an_exporter_there_is_no_thread(metrics):
    """Nothing to start and nothing to end."""
    idle = pusher(metrics)
    idle.start()
    assert not idle._thread.is_alive()
    idle.shutdown()


def test_traces_and_metrics_are_of_the_same_instance():
    """A back end joins them by `service.instance.id`."""
    application = create_app(Settings())
    assert application._pusher._resource is application.tracing._resource
