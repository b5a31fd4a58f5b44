"""Alerts and panels ask for metrics, labels and values that the gateway has."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import Counter, Histogram

from gateway.observability.metrics import Metrics
from tests.support.chart import CHART, ROOT, manifests_of, named, values_of

PROMETHEUS_OWN = {"up"}
TARGET_LABELS = {"namespace", "job", "pod", "le"}
"""Given by Prometheus and its operator."""


def known_series() -> dict[str, set[str]]:
    """By name of a series, its labels, as the gateway's registry has them."""
    found: dict[str, set[str]] = {}
    for metric in set(Metrics().registry._names_to_collectors.values()):
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Histogram):
            found |= {f"{name}_{end}": labels for end in ("bucket", "sum", "count")}
        elif isinstance(metric, Counter):
            found[f"{name}_total"] = labels
        else:
            found[name] = labels
    return found


SERIES = known_series()

_FUNCTIONS = {
    *("sum", "max", "min", "by", "rate", "absent", "histogram_quantile", "label_values", "vector"),
}


def alerts() -> dict[str, str]:
    """The expressions of the alerts, by name."""
    rule = named(manifests_of("everything"), "PrometheusRule", "models")
    return {
        alert["alert"]: alert["expr"]
        for group in rule["spec"]["groups"]
        for alert in group["rules"]
        if alert["alert"] != "Mine"  # that of the test's own values
    }


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return loaded


def panels() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of every line."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]


QUERIES = {**alerts(), **{title: expression for title, expression, _ in panels()}}


def check(expression: str) -> None:
    """Asserts that every series and label in PromQL exists, and that what is opened is closed."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    for left, right in ("()", "{}", "[]"):
        assert bare.count(left) == bare.count(right)
    selectors = re.findall(r"([a-z_][a-z0-9_]*)\{([^}]*)\}", bare)
    assert selectors
    of_query: set[str] = set()
    for name, matchers in selectors:
        if name in PROMETHEUS_OWN:
            continue
        assert name in SERIES, f"no such metric: {name}"
        labels = set(re.findall(r"([a-z_]+)(?:=~|!~|!=|=)", matchers))
        assert labels <= SERIES[name] | TARGET_LABELS, f"{name}: {labels - SERIES[name]}"
        of_query |= SERIES[name]
    for grouping in re.findall(r"by \(([^)]*)\)", bare):
        assert set(grouping.split(", ")) <= of_query | TARGET_LABELS, grouping
    # Nothing else in it looks like a metric: all have a selector.
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", " ", bare)
    words = set(re.findall(r"\b[a-z_][a-z0-9_]+\b", rest))
    assert words <= _FUNCTIONS | {name for name, _ in selectors}, words


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_asks_for_what_there_is(name: str):
    """Its metrics are in the gateway's registry, with the labels that it selects and sums by."""
    check(QUERIES[name])


@pytest.mark.parametrize(
    "wrong",
    [
        'sum(rate(http_requests_total{job="a"}[5m]))',
        "sum by (model) (rate(gen_ai_client_operation_duration_seconds_count{}[5m]))",
        'sum(understudy_upstream_up{route="a"})',
    ],
)
def test_a_query_for_something_else_is_noticed(wrong: str):
    """The check above refuses metrics and labels that there aren't."""
    with pytest.raises(AssertionError):
        check(wrong)


def test_legends_name_labels_that_the_query_keeps():
    """A label in a legend is one that the query sums by."""
    for title, expression, legend in panels():
        kept = {
            label
            for grouping in re.findall(r"by \(([^)]*)\)", expression)
            for label in grouping.split(", ")
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, title


def test_alerts_say_what_happened_and_what_to_do():
    """Each has a severity, a duration, a summary and a description with Prometheus' templates."""
    rule = named(manifests_of("everything"), "PrometheusRule", "models")
    for alert in rule["spec"]["groups"][0]["rules"][:-1]:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["labels"]["team"] == "platform"
        assert alert["for"]
        assert {"summary", "description"} <= set(alert["annotations"])


def test_alerts_are_about_this_release_only():
    """Two releases in one cluster don't raise each other's alerts."""
    for name, expression in alerts().items():
        for selector in re.findall(r"\{([^}]*)\}", expression):
            assert 'namespace="ai"' in selector, name
            assert "models" in selector, name


def test_jobs_are_named_as_the_monitors_name_them():
    """The operator calls a job after the Service, or after the PodMonitor with its namespace."""
    manifests = manifests_of("everything")
    monitor = named(manifests, "ServiceMonitor", "models")["spec"]["selector"]["matchLabels"]
    [service] = [
        one["metadata"]["name"]
        for one in manifests
        if one["kind"] == "Service" and monitor.items() <= one["metadata"]["labels"].items()
    ]
    pattern = re.search(r'job=~"([^"]+)"', alerts()["UnderstudyModelErrors"])
    assert pattern
    assert re.fullmatch(pattern[1], service)
    worker = named(manifests, "PodMonitor", "models-worker")["metadata"]
    assert re.fullmatch(pattern[1], f"{worker['namespace']}/{worker['name']}")


def test_the_dashboard_is_current():
    """The file is what helm/dashboard.py writes (`make chart`)."""
    spec = importlib.util.spec_from_file_location("dashboard", ROOT / "helm" / "dashboard.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.text() == (CHART / "files" / "dashboard.json").read_text(encoding="utf-8")


def test_every_metric_is_on_the_dashboard():
    """Nothing that the gateway measures goes unseen."""
    shown = " ".join(expression for _, expression, _ in panels())
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in SERIES}
    assert {name for name in families if name not in shown} == set()


def test_panels_do_not_overlap():
    """Each has a place of its own in the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_config_map_carries_it_whole():
    """What Grafana gets is the file, templates of Grafana included."""
    config_map = named(manifests_of("everything"), "ConfigMap", "models-dashboard")
    assert json.loads(config_map["data"]["understudy.json"]) == dashboard()
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert values_of("everything")["grafanaDashboard"]["enabled"]
