"""Asking backends by ourselves: whether a broken one works again, and how busy a server is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import httpx
import msgspec

from gateway.errors import GatewayError, UpstreamError
from gateway.ports import ModelServer
from gateway.routing.breaker import Reason, reason_of
from gateway.routing.catalog import Backend, Catalog, Model
from gateway.routing.observer import Observer

__all__ = ["Prober", "probe"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
OBSERVED_EVERY = 5
"""So many ticks go by between two observations of what is in flight."""

UNTOLD_SECONDS = 60.0
"""A server that doesn't tell of its queue is asked again after this."""


class Prober:
    """Probes what is broken, and looks at the queues behind models that have several backends.

    The only backend of a model is asked by callers whatever is known of it; probing it tells
    operators when it works again though nobody calls.
    """

    def __init__(self, catalog: Catalog, observer: Observer) -> None:
        self._catalog = catalog
        self._observer = observer
        self._next_load: dict[ModelServer, float] = {}

    async def run(self) -> None:
        """Until it is cancelled; whatever fails in it, it goes on."""
        while True:
            try:
                await self._run()
            except Exception:
                logger.exception("Looking after the backends failed; it goes on")
                await asyncio.sleep(TICK_SECONDS)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        ticks = 0
        async with asyncio.TaskGroup() as group:
            while True:
                models = self._catalog.models()
                shared = [model for model in models if len(model.backends) > 1]
                for model, backend in _each(models):
                    if backend.breaker.probe_is_due():
                        backend.breaker.begin_probe()
                        group.create_task(self._probe(model, backend))
                self._ask_for_loads(group, shared, clock())
                if ticks % OBSERVED_EVERY == 0:
                    for _, backend in _each(models):
                        self._observer.loaded(backend.server, backend.load.in_flight)
                ticks += 1
                await asyncio.sleep(TICK_SECONDS)

    async def _probe(self, model: Model, backend: Backend) -> None:
        breaker, name = backend.breaker, backend.server.name
        reason: Reason | None = "failing"  # a fault of ours must not leave it half open
        error: GatewayError | None = None
        try:
            async with asyncio.timeout(model.routing.probe_timeout_seconds):
                error = await probe(model, backend)
            reason = reason_of(error) if error is not None else None
        except TimeoutError:
            reason = "slow"
        except Exception:
            logger.exception("%s: the probe of %s failed", name, backend.model)
        finally:
            if reason is None or reason == "overloaded":
                breaker.succeeded()
                logger.info("%s: %s works again", name, backend.model)
            else:
                breaker.probe_failed(reason)
                told = error or "no answer in time"
                logger.warning("%s: %s doesn't work yet: %s", name, backend.model, told)

    def _ask_for_loads(self, group: asyncio.TaskGroup, shared: list[Model], now: float) -> None:
        due: dict[ModelServer, tuple[Backend, float]] = {}
        for model, backend in _each(shared):
            if not backend.load.down and self._next_load.get(backend.server, 0.0) <= now:
                due[backend.server] = backend, model.routing.load_interval_seconds
        if not due:
            return
        servers = {backend.server for _, backend in _each(shared)}
        self._next_load = {key: at for key, at in self._next_load.items() if key in servers}
        for server, (backend, interval) in due.items():
            self._next_load[server] = now + UNTOLD_SECONDS  # while it is being asked
            group.create_task(self._ask_for_load(backend, interval))

    async def _ask_for_load(self, backend: Backend, interval: float) -> None:
        server = backend.server
        told = None
        try:
            told = await server.queue_length()
            wait = interval if told is not None else UNTOLD_SECONDS
        except (GatewayError, httpx.HTTPError):
            wait = interval  # discovery says that it is down, if it is
        except Exception:  # one server's oddity must not end the others' probes
            logger.exception("%s: its queue can't be read", server.name)
            wait = UNTOLD_SECONDS
        backend.load.told(told)
        self._next_load[server] = asyncio.get_running_loop().time() + wait


async def probe(model: Model, backend: Backend) -> GatewayError | None:
    """Ask for the smallest answer there is, on the path, connections and TLS of traffic; the error
    that it is, if it is one.
    """
    path, request = _SMALLEST.get(model.kind or "chat", _SMALLEST["chat"])
    body = msgspec.json.encode({"model": backend.model, **request})
    server = backend.server
    try:
        answer = await server.send(path, body)
        try:
            if answer.status != 200:
                return await server.refusal(path, answer)
            if answer.content_type != "application/json":
                return UpstreamError("It answered with something that is no JSON.")
        finally:
            answer.close()
    except GatewayError as error:
        return error
    return None


_SMALLEST: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1},
    ),
    "embedding": ("/v1/embeddings", {"input": "ping"}),
    "rerank": ("/v1/rerank", {"query": "ping", "documents": ["ping"]}),
}


def _each(models: Iterable[Model]) -> Iterable[tuple[Model, Backend]]:
    return ((model, backend) for model in models for backend in model.backends)
