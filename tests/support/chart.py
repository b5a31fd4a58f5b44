"""The Helm chart, rendered by Helm's own engine (helm-python-sdk holds Helm 4)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml
from helm_python import HelmError, chart

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "understudy"
NAMESPACE = "ai"
RELEASE = "understudy"

VALUES = {
    **{file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").iterdir())},
    "rhoai": ROOT / "deploy" / "argocd" / "values-rhoai-2.25.yaml",
}
"""The matrix: by name, the file of values."""

Manifest = dict[str, Any]


class Refused(Exception):
    """The chart, or the schema of its values, says no; the message is what a user reads."""


@cache
def _loaded() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def values_of(name: str) -> dict[str, Any]:
    """The values of a name in the matrix."""
    loaded: dict[str, Any] = yaml.safe_load(VALUES[name].read_text(encoding="utf-8"))
    return loaded


def default_values() -> dict[str, Any]:
    """values.yaml."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return loaded


def changed(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others on top, as ``helm -f one -f two`` merges them."""
    merged = copy.deepcopy(dict(values))
    for key, value in change.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = changed(before, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def render_files(values: Mapping[str, Any]) -> dict[str, str]:
    """By template, what it renders to. Raises :class:`Refused`."""
    try:
        rendered = _loaded().render(dict(values), name=RELEASE, namespace=NAMESPACE)
    except HelmError as error:
        raise Refused(str(error)) from None
    return {name.removeprefix("understudy/templates/"): text for name, text in rendered.items()}


def render(values: Mapping[str, Any]) -> list[Manifest]:
    """Every manifest. Raises :class:`Refused`."""
    return [
        manifest
        for name, text in render_files(values).items()
        if name != "NOTES.txt"
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


@cache
def manifests_of(name: str) -> tuple[Manifest, ...]:
    """Every manifest of a name in the matrix; to be read, not changed."""
    return tuple(render(values_of(name)))


def named(
    manifests: Iterator[Manifest] | list[Manifest] | tuple[Manifest, ...], kind: str, name: str
) -> Manifest:
    """The manifest of this kind and name."""
    [found] = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and manifest["metadata"]["name"] == name
    ]
    return found


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod's metadata and spec inside a manifest, where it makes pods."""
    if manifest["kind"] == "Pod":
        return manifest
    if manifest["kind"] in {"Deployment", "Job"}:
        template: Manifest = manifest["spec"]["template"]
        return template
    return None


def settings_file(manifests: list[Manifest] | tuple[Manifest, ...], name: str) -> str:
    """The gateway's settings file in a ConfigMap."""
    text: str = named(manifests, "ConfigMap", name)["data"]["understudy.yaml"]
    return text


def lint(values: Mapping[str, Any]) -> list[str]:
    """What ``helm lint --strict`` finds wrong."""
    report = chart.lint(CHART, dict(values), strict=True)
    found = [one["error"] for one in report["messages"] if one["severity"] >= 2]
    return [*found, *report["errors"]]
