"""The requirements, and tables of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.scenarios import SCENARIOS

Runs = dict[tuple[str, str], list[dict[str, Any]]]
"""What each round measured, by the names of scenario and peer."""


@dataclass(frozen=True)
class Row:
    """A requirement beside what was measured. ``verdict``: ok, short, or not measured."""

    number: str
    what: str
    required: str
    measured: str
    verdict: str
    value: float | None
    """The measured figure in the unit of ``required``."""
    limit: float


class Figures:
    """Medians over the rounds."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def median(self, scenario: str, peer: str, field: str) -> float | None:
        values = [run.get(field) for run in self.runs.get((scenario, peer), ())]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def worst(self, scenario: str, peer: str, field: str) -> float | None:
        known = [r[field] for r in self.runs.get((scenario, peer), ()) if r.get(field) is not None]
        return min(known) if known else None

    def errors(self, scenario: str, peer: str) -> int:
        return sum(run["errors"] for run in self.runs.get((scenario, peer), ()))


def requirements(figures: Figures, rss_after: Sequence[float]) -> list[Row]:
    """One row for each requirement. ``rss_after`` is the gateway's memory (MB) at the end of its
    turn in each round."""
    rows: list[Row] = []

    def add(
        number: str, what: str, required: str, value: float | None, limit: float,
        *, at_least: bool, shown: str, failed: int = 0,
    ) -> None:  # fmt: skip
        if value is None:
            rows.append(Row(number, what, required, "-", "not measured", None, limit))
            return
        good = (value >= limit if at_least else value <= limit) and not failed
        note = f" ({failed} failed answers)" if failed else ""
        rows.append(
            Row(number, what, required, shown + note, "ok" if good else "short", value, limit)
        )

    def against(
        number: str, what: str, scenario: str, field: str, limit: float,
        *, gateway: str = "gateway", other: str = "nginx", at_least: bool = True, unit: str,
    ) -> None:  # fmt: skip
        mine = figures.median(scenario, gateway, field)
        theirs = figures.median(scenario, other, field)
        ratio = mine / theirs if mine is not None and theirs else None
        shown = f"{ratio:.3g} x  ({mine:,.0f} to {theirs:,.0f} {unit})" if ratio else ""
        sign = ">=" if at_least else "<="
        required = f"{sign} {limit:g} x {other}"
        failed = figures.errors(scenario, gateway)
        add(number, what, required, ratio, limit, at_least=at_least, shown=shown, failed=failed)

    against("1", "JSON, 16 connections, traced", "json", "rate", 0.08, unit="req/s")
    against("1", "JSON, 16 connections, traced", "json", "rate", 45, other="litellm", unit="req/s")
    traced = [
        share
        for scenario in SCENARIOS
        if (share := figures.worst(scenario.name, "gateway", "traced")) is not None
    ]
    add(
        "1", "spans that arrived, of 2 per request", ">= 100 %",
        100 * min(traced) if traced else None, 100, at_least=True,
        shown=f"{100 * min(traced):.2f} % (worst run)" if traced else "",
    )  # fmt: skip
    against(
        "2", "JSON, 16 connections, sampling at 0", "json", "rate", 0.20,
        gateway="unsampled", unit="req/s",
    )  # fmt: skip
    against("3", "64 streams, unpaced", "streams", "event_rate", 1.0, unit="chunks/s")
    against(
        "4", "200 paced streams: first chunk, p99", "paced", "first_p99_us", 3.0,
        at_least=False, unit="µs",
    )  # fmt: skip
    cpu = figures.median("paced", "gateway", "peer_cpu")
    add(
        "4", "200 paced streams: CPU", "< 0.5 cores", cpu, 0.5, at_least=False,
        shown=f"{cpu:.2f} cores" if cpu is not None else "",
    )  # fmt: skip
    tail = figures.median("json-64", "gateway", "latency_p99_us")
    alone = figures.median("json-1", "gateway", "latency_p50_us")
    ratio = tail / alone if tail and alone else None
    add(
        "5", "JSON: p99 of 64 connections to p50 of 1", "<= 15 x", ratio, 15, at_least=False,
        shown=f"{ratio:.1f} x  ({tail:,.0f} to {alone:,.0f} µs)" if ratio else "",
        failed=figures.errors("json-64", "gateway") + figures.errors("json-1", "gateway"),
    )  # fmt: skip
    against("6", "embeddings, 8 connections", "embeddings", "rate", 0.35, unit="req/s")
    rss = max(rss_after, default=None)
    add(
        "7", "memory after the load (all processes)", "<= 100 MB", rss, 100, at_least=False,
        shown=f"{rss:.0f} MB" if rss is not None else "",
    )  # fmt: skip
    return rows


def requirement_table(rows: Iterable[Row]) -> str:
    cells = [(r.number, r.what, r.required, r.measured, r.verdict) for r in rows]
    return _table(("", "requirement", "required", "measured", ""), cells)


def raw_table(figures: Figures) -> str:
    """Medians of every scenario and peer."""
    head = (
        "scenario", "peer", "req/s", "chunks/s", "p50 ms", "p99 ms", "TTFT p50", "TTFT p99",
        "CPU µs each", "peer CPU", "tools CPU", "RSS MB", "errors",
    )  # fmt: skip
    body = []
    for scenario in SCENARIOS:
        for peer in scenario.peers:
            if (scenario.name, peer.name) not in figures.runs:
                continue

            def of(field: str, form: str = ",.0f", scale: float = 1) -> str:
                value = figures.median(scenario.name, peer.name, field)  # noqa: B023 - used at once
                return "-" if value is None else format(value * scale, form)

            body.append(
                (
                    scenario.name,
                    peer.name,
                    of("rate"),
                    of("event_rate") if scenario.stream else "-",
                    of("latency_p50_us", ".2f", 1e-3),
                    of("latency_p99_us", ".2f", 1e-3),
                    of("first_p50_us", ".2f", 1e-3),
                    of("first_p99_us", ".2f", 1e-3),
                    of("cpu_us_per_unit", ",.1f"),
                    of("peer_cpu", ".2f"),
                    of("tools_cpu", ".2f"),
                    of("rss_mb"),
                    str(figures.errors(scenario.name, peer.name)),
                )
            )
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([line(head), rule, *map(line, body)])
