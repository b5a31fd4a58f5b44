"""The metrics of routing: which servers work, how busy they are, what was tried again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.observability import semconv
from gateway.observability.metric_names import label, prometheus_name
from gateway.routing.observer import Observer

if TYPE_CHECKING:
    from gateway.ports import ModelServer

__all__ = ["RoutingMetrics"]

_SERVER = [semconv.SERVER_ADDRESS, semconv.SERVER_PORT]
_BACKEND = [*_SERVER, semconv.BACKEND_MODEL]
_STATES = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class RoutingMetrics(Observer):
    """Is told by :mod:`gateway.routing` and by the reloading of the configuration."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._stated: dict[tuple[str, int], set[str]] = {}
        self._up = self._gauge(
            semconv.M_UPSTREAM_UP,
            "Whether a model server answered when last asked for its models.",
            _SERVER,
            "livemin",
        )
        self._in_flight = self._gauge(
            semconv.M_UPSTREAM_IN_FLIGHT,
            "Requests that a model server has from here, looked at every second.",
            _SERVER,
            "livesum",
        )
        self._state = self._gauge(
            semconv.M_UPSTREAM_STATE,
            "The circuit breaker of a backend: 0 closed, 0.5 half open, 1 open.",
            _BACKEND,
            "livemax",
        )
        self._ejections = self._counter(
            semconv.M_UPSTREAM_EJECTIONS,
            "Times that a backend was left alone for a while.",
            [*_BACKEND, semconv.EJECTION_REASON],
        )
        self._retries = self._counter(
            semconv.M_RETRIES,
            "Requests that were sent to another backend.",
            [semconv.REQUEST_MODEL, semconv.ERROR_TYPE],
        )
        self._refused = self._counter(
            semconv.M_RETRIES_REFUSED,
            "Requests that were not, since there were too many retries.",
            [semconv.REQUEST_MODEL],
        )
        self._reloads = self._counter(
            semconv.M_RELOADS,
            "Times that the configuration was read again.",
            [semconv.RELOAD_OUTCOME],
        )
        self._reload_failed = self._gauge(
            semconv.M_RELOAD_FAILED,
            "Whether the configuration read last is invalid, so that an older one is used.",
            [],
            "livemax",
        )

    def answered(self, server: ModelServer, *, up: bool) -> None:
        self._up.labels(server.host, server.port).set(up)

    def loaded(self, server: ModelServer, in_flight: int) -> None:
        self._in_flight.labels(server.host, server.port).set(in_flight)

    def gone(self, server: ModelServer) -> None:
        address = (server.host, server.port)
        models = self._stated.pop(address, set())
        self._in_flight.labels(*address).set(0)
        for model in models:
            self._state.labels(*address, model).set(0)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # whose files can't forget a series
            self._in_flight.remove(*address)
            self._up.remove(*address)
            for model in models:
                self._state.remove(*address, model)

    def state_changed(self, server: ModelServer, model: str, state: str) -> None:
        self._stated.setdefault((server.host, server.port), set()).add(model)
        self._state.labels(server.host, server.port, model).set(_STATES[state])

    def ejected(self, server: ModelServer, model: str, reason: str) -> None:
        self._ejections.labels(server.host, server.port, model, reason).inc()

    def retried(self, model: str, error_type: str) -> None:
        self._retries.labels(model, error_type).inc()

    def retry_refused(self, model: str) -> None:
        self._refused.labels(model).inc()

    def reloaded(self, outcome: str) -> None:
        """The configuration was read again and ``applied``, is ``invalid`` or ``unchanged``."""
        self._reloads.labels(outcome).inc()
        self._reload_failed.set(outcome == "invalid")

    def _gauge(self, name: str, help_text: str, labels: list[str], mode: str) -> Gauge:
        return Gauge(
            prometheus_name(name, ""),
            help_text,
            [label(one) for one in labels],
            registry=self._registry,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # one of its literals
        )

    def _counter(self, name: str, help_text: str, labels: list[str]) -> Counter:
        return Counter(
            prometheus_name(name, ""),
            help_text,
            [label(one) for one in labels],
            registry=self._registry,
        )
