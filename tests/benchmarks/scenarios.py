"""What is sent, by how many connections, and which peers it is sent through."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers import (
    CHAT,
    DIRECT,
    EMBED,
    GATEWAY,
    LITELLM,
    NGINX,
    UNSAMPLED,
    Peer,
    Running,
    Upstream,
)
from tests.benchmarks.tools import BenchError, Cores, run_load, usage

EVENTS = 128
"""Chunks of a stream, as upstream.c makes them. Usage and [DONE] come on top."""
PACE_MS = 20
STREAM_SECONDS = (EVENTS - 1) * PACE_MS / 1000
SPAN_PATIENCE = 12.0
"""Seconds for the last batch of spans to arrive: the exporter may hold one back for 5 s."""

_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def _body(**more: Any) -> str:
    return json.dumps({"model": CHAT, "messages": _MESSAGES, "temperature": 0} | more)


_EMBEDDINGS = json.dumps(
    {
        "model": EMBED,
        "input": [f"Passage {n} of a text that a team wants to find again." for n in range(32)],
        "encoding_format": "float",
    }
)


@dataclass(frozen=True)
class Scenario:
    """One kind of load. ``options`` are load.c's."""

    name: str
    title: str
    peers: tuple[Peer, ...]
    connections: int
    options: tuple[str, ...]
    stream: bool = False
    embeddings: bool = False
    stagger: float = 0
    """Seconds over which the first requests are spread, so that streams do not run in step."""
    longer: float = 1
    """Factor on the measured time, for percentiles that need more samples."""


_JSON = ("--body", _body(), "--expect", '"finish_reason":"stop"', "--min-bytes", "300")
_STREAM = ("--body", _body(stream=True), "--stream")
_PACED = ("--body", _body(stream=True, seed=PACE_MS), "--stream")
_FLOATS = ("--body", _EMBEDDINGS, "--expect", '"usage"', "--min-bytes", "400000")

SCENARIOS = (
    Scenario(
        "json",
        "JSON chat, 16 connections",
        (DIRECT, NGINX, LITELLM, GATEWAY, UNSAMPLED),
        16,
        _JSON,
    ),
    Scenario(
        "json-1",
        "JSON chat, 1 connection",
        (DIRECT, NGINX, LITELLM, GATEWAY, UNSAMPLED),
        1,
        _JSON,
    ),
    Scenario(
        "json-64",
        "JSON chat, 64 connections",
        (DIRECT, NGINX, GATEWAY, UNSAMPLED),
        64,
        _JSON,
    ),
    Scenario(
        "streams",
        "64 streams of 128 chunks, unpaced",
        (DIRECT, NGINX, LITELLM, GATEWAY),
        64,
        _STREAM,
        stream=True,
    ),
    Scenario(
        "paced",
        "200 streams, a chunk each 20 ms",
        (DIRECT, NGINX, GATEWAY),
        200,
        _PACED,
        stream=True,
        stagger=STREAM_SECONDS,
        longer=2,
    ),
    Scenario(
        "embeddings",
        "embeddings of 32 x 1024 floats, 8 connections",
        (DIRECT, NGINX, GATEWAY),
        8,
        _FLOATS,
        embeddings=True,
    ),
)


def named(names: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios of these names, in their fixed order; all of them for none."""
    known = {scenario.name for scenario in SCENARIOS}
    if unknown := set(names) - known:
        raise BenchError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return tuple(s for s in SCENARIOS if not names or s.name in names)


def measure(
    scenario: Scenario, peer: Peer, running: Running, up: Upstream, cores: Cores, seconds: float
) -> dict[str, Any]:
    """Put the load on a running peer. The fields are load.c's, and those added at the end here:
    CPU seconds per second (``*_cpu``), CPU µs per request or chunk, memory (MB), spans."""
    warmup = scenario.stagger + min(1.0, seconds / 4)
    seconds *= scenario.longer
    command = [
        *("--port", str(running.embed_port if scenario.embeddings else running.port)),
        *("--path", "/v1/embeddings" if scenario.embeddings else "/v1/chat/completions"),
        *("--connections", str(scenario.connections)),
        *("--seconds", f"{seconds:.3f}", "--warmup", f"{warmup:.3f}"),
        *("--stagger", f"{scenario.stagger:.3f}"),
        *scenario.options,
    ]
    for name, value in running.headers.items():
        command += ["--header", f"{name}: {value}"]
    if peer.traceparent:
        command.append("--traceparent")
    if scenario.stream:
        least = EVENTS if peer.exact_events else EVENTS // 2
        command += ["--min-events", str(least)]
        if peer.exact_events:
            command += ["--max-events", str(EVENTS)]
    spans_before = up.sink_stats()
    before, tools_before = usage(running.pid), _tools_cpu(up)
    result = run_load(cores.tools, command, warmup + seconds + 60)
    after, tools_after = usage(running.pid), _tools_cpu(up)
    wall = result["wall_seconds"]
    cpu = after.cpu_since(before)
    units = result["events_total"] if scenario.stream else result["done_total"]
    result |= {
        "peer_cpu": cpu / wall,
        "tools_cpu": (tools_after - tools_before + result["cpu_seconds"]) / wall,
        "cpu_us_per_unit": 1e6 * cpu / units if units else None,
        "rss_mb": usage(running.pid).rss_mb,
    }
    if peer.traces:
        result["spans"] = _arrived_spans(up, spans_before, result["sent_total"])
        result["traced"] = result["spans"] / (2 * max(1, result["sent_total"]))
    return result


def _tools_cpu(up: Upstream) -> float:
    return usage(up.process.pid).cpu_seconds + usage(up.sink_process.pid).cpu_seconds


def _arrived_spans(up: Upstream, before: dict[str, int], requests: int) -> int:
    """SERVER and CLIENT spans at the sink, at most one of each for a request; waits for the last
    batch. The cap keeps a surplus of one kind from hiding a loss of the other."""
    deadline = time.monotonic() + SPAN_PATIENCE
    while True:
        now = up.sink_stats()
        kinds = [now[k] - before[k] for k in ("server_spans", "client_spans")]
        arrived = sum(min(requests, kind) for kind in kinds)
        if arrived >= 2 * requests or time.monotonic() > deadline:
            return arrived
        time.sleep(0.2)
