"""The names that Prometheus has for what the semantic conventions name."""

from __future__ import annotations

__all__ = ["label", "prometheus_name"]


def label(name: str) -> str:
    """``http.request.method`` as Prometheus writes it."""
    return name.replace(".", "_")


def prometheus_name(name: str, unit: str) -> str:
    """OpenTelemetry's translation of a metric's name and unit."""
    suffix = "_seconds" if unit == "s" else ""
    return label(name) + suffix
