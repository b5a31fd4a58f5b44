"""Writes the Grafana dashboard of the chart: ``python helm/dashboard.py`` (or ``make chart``).

The panels are listed here as what they show; tests/chart compares the metrics and labels that they
query with those that the gateway has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Histogram

from gateway.observability.metrics import Metrics

FILE = Path(__file__).parent / "understudy" / "files" / "dashboard.json"

_SERIES = 'namespace=~"$namespace",job=~"$job"'
_MODELS = _SERIES + ',gen_ai_request_model=~"$model"'
_RATE = "$__rate_interval"
_COLUMNS, _HEIGHT = 3, 8
_WIDTH = 24 // _COLUMNS

Query = tuple[str, str]
"""PromQL, and what a line is called."""
Panel = tuple[str, str, list[Query]]
"""Title, Grafana's unit, and the lines."""


def _rate(metric: str, labels: str = _SERIES, by: str = "") -> str:
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{labels}}}[{_RATE}]))"


def _share(part: str, metric: str, labels: str = _SERIES) -> str:
    return f"{_rate(metric, f'{labels},{part}')} / {_rate(metric, labels)}"


def _by_server(operator: str, gauge: str) -> str:
    return f"{operator} by (server_address, server_port) ({gauge}{{{_SERIES}}})"


def _quantiles(metric: str, labels: str = _SERIES, by: str = "") -> list[Query]:
    key = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    inner = f"sum by ({key}) (rate({metric}_bucket{{{labels}}}[{_RATE}]))"
    return [
        (f"histogram_quantile({quantile}, {inner})", f"{legend}p{name}")
        for quantile, name in ((0.5, 50), (0.95, 95), (0.99, 99))
    ]


_HTTP = "http_server_request_duration_seconds"
_CALL = "gen_ai_client_operation_duration_seconds"
_MODEL = "gen_ai_request_model"
_FAILED = 'error_type!="",error_type!="client_disconnected"'

ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Requests",
        [
            (
                "Requests per second, by status",
                "reqps",
                [
                    (
                        _rate(f"{_HTTP}_count", by="http_response_status_code"),
                        "{{http_response_status_code}}",
                    )
                ],
            ),
            (
                "Share of 5xx",
                "percentunit",
                [(_share('http_response_status_code=~"5.."', f"{_HTTP}_count"), "5xx")],
            ),
            (
                "Requests in progress",
                "short",
                [(f"sum by (pod) (http_server_active_requests{{{_SERIES}}})", "{{pod}}")],
            ),
            (
                "Requests per second, by route",
                "reqps",
                [(_rate(f"{_HTTP}_count", by="http_route"), "{{http_route}}")],
            ),
            ("Duration of requests", "s", _quantiles(_HTTP)),
        ],
    ),
    (
        "Models",
        [
            (
                "Calls per second",
                "reqps",
                [
                    (
                        _rate(f"{_CALL}_count", _MODELS, f"gen_ai_operation_name, {_MODEL}"),
                        "{{gen_ai_operation_name}} {{gen_ai_request_model}}",
                    )
                ],
            ),
            (
                "Failed calls per second",
                "reqps",
                [
                    (
                        _rate(f"{_CALL}_count", f"{_MODELS},{_FAILED}", f"{_MODEL}, error_type"),
                        "{{gen_ai_request_model}} {{error_type}}",
                    )
                ],
            ),
            (
                "Calls that callers left, per second",
                "reqps",
                [
                    (
                        _rate(
                            f"{_CALL}_count",
                            f'{_MODELS},error_type="client_disconnected"',
                            _MODEL,
                        ),
                        "{{gen_ai_request_model}}",
                    )
                ],
            ),
            (
                "Time to the first event of streams",
                "s",
                _quantiles("gen_ai_client_operation_time_to_first_chunk_seconds", _MODELS, _MODEL),
            ),
            ("Duration of calls", "s", _quantiles(_CALL, _MODELS, _MODEL)),
            (
                "Tokens per second",
                "short",
                [
                    (
                        _rate(
                            "gen_ai_client_token_usage_sum",
                            _MODELS,
                            f"{_MODEL}, gen_ai_token_type",
                        ),
                        "{{gen_ai_request_model}} {{gen_ai_token_type}}",
                    )
                ],
            ),
            (
                "Model servers that answer",
                "short",
                [
                    (
                        _by_server("max", "understudy_upstream_up"),
                        "{{server_address}}:{{server_port}}",
                    )
                ],
            ),
            (
                "Connections to model servers",
                "short",
                [
                    (
                        _by_server("sum", "understudy_upstream_connections"),
                        "{{server_address}}:{{server_port}}",
                    )
                ],
            ),
        ],
    ),
    (
        "Files into vector stores",
        [
            (
                "Attempts per second, by outcome",
                "short",
                [
                    (
                        _rate(
                            "understudy_ingestion_duration_seconds_count",
                            by="understudy_ingestion_status",
                        ),
                        "{{understudy_ingestion_status}}",
                    )
                ],
            ),
            (
                "Files in work",
                "short",
                [(f"sum by (pod) (understudy_ingestion_active{{{_SERIES}}})", "{{pod}}")],
            ),
            ("Wait for a worker", "s", _quantiles("understudy_ingestion_wait_seconds")),
            ("Duration of attempts", "s", _quantiles("understudy_ingestion_duration_seconds")),
            (
                "Chunks per second",
                "short",
                [
                    (
                        _rate("understudy_ingestion_chunks_sum", by="understudy_chunk_source"),
                        "{{understudy_chunk_source}}",
                    )
                ],
            ),
        ],
    ),
    (
        "Tools, batches, stored completions",
        [
            (
                "Requests to tool servers per second",
                "reqps",
                [
                    (
                        _rate(
                            "mcp_client_operation_duration_seconds_count",
                            by="mcp_method_name, error_type",
                        ),
                        "{{mcp_method_name}} {{error_type}}",
                    )
                ],
            ),
            (
                "Lines of batches per second",
                "short",
                [
                    (
                        _rate(
                            "understudy_batch_line_duration_seconds_count",
                            by="understudy_batch_line_outcome",
                        ),
                        "{{understudy_batch_line_outcome}}",
                    ),
                    (f"sum(understudy_batch_active{{{_SERIES}}})", "batches in work"),
                ],
            ),
            (
                "Chat completions to be stored, per second",
                "short",
                [
                    (
                        _rate(
                            "understudy_chat_completion_store_duration_seconds_count",
                            by="understudy_store_outcome",
                        ),
                        "{{understudy_store_outcome}}",
                    )
                ],
            ),
        ],
    ),
]


def _others() -> list[Panel]:
    """A plain panel for each metric of the gateway that no row above shows."""
    shown = json.dumps([queries for _, panels in ROWS for _, _, queries in panels])
    panels: list[Panel] = []
    for metric in dict.fromkeys(Metrics().registry._names_to_collectors.values()):  # noqa: SLF001
        [family] = metric.describe()
        name, labels = family.name, ", ".join(metric._labelnames)  # noqa: SLF001
        if name in shown:
            continue
        title = family.documentation.rstrip(".")
        legend = " ".join(f"{{{{{label}}}}}" for label in metric._labelnames)  # noqa: SLF001
        by = f" by ({labels})" if labels else ""
        if isinstance(metric, Histogram):
            panels.append((title, "s" if name.endswith("_seconds") else "short", _quantiles(name)))
        elif isinstance(metric, Counter):
            panels.append((title, "short", [(_rate(f"{name}_total", by=labels), legend)]))
        else:
            # States of several replicas don't add up.
            operator = "sum" if name.endswith(("_in_flight", "_active")) else "max"
            panels.append((title, "short", [(f"{operator}{by} ({name}{{{_SERIES}}})", legend)]))
    return panels


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    others = _others()
    rows = [*ROWS, ("More", others)] if others else ROWS
    panels: list[dict[str, Any]] = []
    top = 0
    for row, contents in rows:
        panels.append(
            {
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        top += 1
        for index, (title, unit, queries) in enumerate(contents):
            place = {"x": index % _COLUMNS * _WIDTH, "y": top + index // _COLUMNS * _HEIGHT}
            panels.append(_panel(title, unit, queries, place))
        top += -(-len(contents) // _COLUMNS) * _HEIGHT
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": "understudy",
        "title": "Understudy",
        "tags": ["understudy", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _panel(title: str, unit: str, queries: list[Query], place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {**place, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def _variables() -> list[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    asked = {
        "namespace": "label_values(http_server_active_requests, namespace)",
        "job": 'label_values(http_server_active_requests{namespace=~"$namespace"}, job)',
        "model": f"label_values({_CALL}_count{{{_SERIES}}}, {_MODEL})",
    }
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        *(
            {
                "name": name,
                "type": "query",
                "datasource": source,
                "query": query,
                "refresh": 2,
                "multi": True,
                "includeAll": True,
            }
            for name, query in asked.items()
        ),
    ]


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
