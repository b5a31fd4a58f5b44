"""Where traces and metrics go: an empty batch is exported, of which nothing stays."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData

from gateway.check.finding import Outcome, failed, fine, shown, skipped
from gateway.check.probe import Probe
from gateway.check.systems import Systems
from gateway.observability.exporters import Signal, load_exporters

__all__ = ["probes"]

_IN_SHORT = {
    "Connection refused": "nothing listens there (connection refused)",
    "Name or service not known": "no name server that is asked here knows its host",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is from no authority that is trusted here",
    "WRONG_VERSION_NUMBER": "it doesn't speak TLS",
}
"""For what an HTTP library says at length."""

_CALLS: dict[Signal, Any] = {"traces": (), "metrics": MetricsData(resource_metrics=[])}


def probes(_: Systems, environment: Mapping[str, str] = os.environ) -> list[Probe]:
    return [
        Probe(
            system=f"OTLP {signal}",
            address=_address(signal, environment),
            look=partial(_look, signal, environment),
        )
        for signal in _CALLS
    ]


def _address(signal: Signal, environment: Mapping[str, str]) -> str:
    named = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return shown(named or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "") or "-"


async def _look(signal: Signal, environment: Mapping[str, str]) -> list[Outcome]:
    exporters = load_exporters(signal, environment)
    if not exporters:
        return [skipped("nothing is exported: no OTLP endpoint is set")]
    return [await _export(exporter, _CALLS[signal]) for exporter in exporters]


async def _export(exporter: Any, batch: Any) -> Outcome:
    if type(exporter).__name__.startswith("Console"):
        return fine("written to standard output")
    said = _Listener(type(exporter).__module__)
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(said)
    exporting = asyncio.ensure_future(_in_thread(lambda: exporter.export(batch)))
    try:
        # The first word of trouble is the most exact, and exporters try again for long.
        await asyncio.wait([exporting, said.heard], return_when=asyncio.FIRST_COMPLETED)
        result = await exporting if exporting.done() else None
    finally:
        logger.removeHandler(said)
        exporting.cancel()
        # On a thread of its own as well: it waits for an export that was given up.
        threading.Thread(target=exporter.shutdown, daemon=True).start()
    if getattr(result, "name", "") == "SUCCESS":
        return fine("took an empty batch")
    return failed(
        f"the export failed: {said.words or 'the collector gave no reason'}",
        "Compare OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL with the collector's "
        "ports (4318 http/protobuf, 4317 grpc), OTEL_EXPORTER_OTLP_HEADERS with what it wants, and "
        "OTEL_EXPORTER_OTLP_CERTIFICATE with who signed its certificate.",
    )


class _Listener(logging.Handler):
    """Keeps why an export failed, which exporters only log. Their words hold no header."""

    def __init__(self, module: str) -> None:
        super().__init__(logging.WARNING)
        self._module = module
        self._loop = asyncio.get_running_loop()
        self.heard: asyncio.Future[None] = self._loop.create_future()
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.words and (record.name == self._module or ".grpc." in record.name):
            text = record.getMessage().partition("\n")[0]
            short = (words for sign, words in _IN_SHORT.items() if sign in text)
            self.words = next(short, text[:300])
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.heard.done():
            self.heard.set_result(None)


async def _in_thread(call: Callable[[], Any]) -> Any:
    """What it returns. A daemon's thread: an exporter that tries again must not hold the end up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001  (raised again where it is awaited)
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    threading.Thread(target=run, name="otlp-check", daemon=True).start()
    return await future
