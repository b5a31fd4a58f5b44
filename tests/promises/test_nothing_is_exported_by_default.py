"""Without `OTEL_*` the gateway exports nothing, warns of nothing and ends at once; with them spans
and metrics arrive by OTLP, and a collector that is gone disturbs no request."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.support.gateway import GatewayError, GatewayProcess, free_port
from tests.support.otlp import Collector
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}


async def chat(gateway: GatewayProcess, *, times: int = 1, stream: bool = False) -> float:
    """Ask that often; the longest that an answer took."""
    longest = 0.0
    async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
        for _ in range(times):
            begun = time.monotonic()
            answer = await client.post(PATH, json={**CHAT, "stream": stream})
            longest = max(longest, time.monotonic() - begun)
            assert answer.status_code == 200
    return longest


def gateway_to(upstream: FakeVllm, **environment: str) -> GatewayProcess:
    return GatewayProcess({"discover": [upstream.url]}, models=["fake-chat"], env=environment)


@pytest.mark.alone
async def test_silence_without_telemetry(upstream):
    """No warning, no word of telemetry in the log, and gone within seconds of SIGTERM."""
    async with gateway_to(upstream) as gateway:
        await chat(gateway, times=3)
        begun = time.monotonic()
        status = await asyncio.to_thread(gateway.terminate)
        seconds = time.monotonic() - begun
        log = gateway.log()
    assert status in (0, -15)
    assert seconds < 5
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    for word in ("otel", "otlp", "telemetry", "exporter", "4318", "4317"):
        assert word not in log.lower()


async def test_spans_arrive_by_otlp(upstream):
    """Decoded as the protocol says: SERVER and CLIENT, nested, with resource and attributes."""
    with Collector() as collector:
        async with gateway_to(
            upstream,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_SERVICE_NAME="front door",
            OTEL_METRICS_EXPORTER="none",
        ) as gateway:
            await chat(gateway, stream=True)
            await asyncio.to_thread(collector.wait_for, lambda _: True, count=2)
    spans = {span.name: span for span in collector.spans}
    server, client = spans[f"POST {PATH}"], spans["chat fake-chat"]
    assert (client.trace_id, client.parent_id) == (server.trace_id, server.span_id)
    assert (server.parent_id, server.failed, client.failed) == ("", False, False)
    assert server.start <= client.start <= client.end <= server.end
    assert client.attributes["gen_ai.usage.output_tokens"] == 8
    assert client.attributes["gen_ai.request.stream"] is True
    assert client.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert client.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert {span.service for span in collector.spans} == {"front door"}
    assert collector.metrics == []


async def test_metrics_arrive_by_otlp(upstream):
    """Under the names of the conventions, as often as is asked for."""
    with Collector() as collector:
        async with gateway_to(
            upstream,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_METRIC_EXPORT_INTERVAL="200",
            OTEL_TRACES_EXPORTER="none",
        ) as gateway:
            await chat(gateway, times=3)
            async with asyncio.timeout(30):
                while "gen_ai.client.token.usage" not in last(collector):
                    await asyncio.sleep(0.05)
    found = last(collector)
    duration = found["gen_ai.client.operation.duration"]
    [point] = duration.histogram.data_points
    attributes = {item.key: item.value.string_value for item in point.attributes}
    assert (duration.unit, point.count, sum(point.bucket_counts)) == ("s", 3, 3)
    assert 0 < point.sum < 3
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert not point.HasField("max") or point.max > 0  # 0 would be a lie
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "fake-chat",
        "server.address": "127.0.0.1",
    }
    assert "http.server.request.duration" in found
    assert found["understudy.upstream.up"].gauge.data_points[0].as_double == 1
    assert collector.spans == []


def last(collector: Collector) -> dict[str, Any]:
    """The last state of every metric that has come, by name."""
    return {metric.name: metric for metric in list(collector.metrics)}


@pytest.mark.alone
async def test_a_collector_that_is_gone_disturbs_nobody(upstream):
    """Requests are as quick as ever, more of them than the queue of spans holds included."""
    async with gateway_to(
        upstream,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_BSP_MAX_QUEUE_SIZE="64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
        OTEL_METRIC_EXPORT_INTERVAL="100",
        OTEL_EXPORTER_OTLP_TIMEOUT="60",
    ) as gateway:
        assert await chat(gateway, times=200) < 0.5
        begun = time.monotonic()
        await asyncio.to_thread(gateway.terminate)
        assert time.monotonic() - begun < 10  # of the 30 s that Kubernetes gives


async def test_an_exporter_that_is_not_installed_is_named(upstream):
    """The gateway doesn't start, and says which variable is wrong."""
    with pytest.raises(GatewayError) as raised:
        async with gateway_to(upstream, OTEL_TRACES_EXPORTER="zipkin"):
            pass
    assert "OTEL_TRACES_EXPORTER: no exporter 'zipkin'" in str(raised.value)
    assert "Traceback" not in str(raised.value)


async def test_the_sdk_can_be_switched_off(upstream):
    """`OTEL_SDK_DISABLED` wins over everything else."""
    with Collector() as collector:
        async with gateway_to(
            upstream,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_SDK_DISABLED="true",
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_METRIC_EXPORT_INTERVAL="50",
        ) as gateway:
            await chat(gateway, times=2)
            await asyncio.sleep(0.5)
    assert (collector.spans, collector.metrics) == ([], [])
