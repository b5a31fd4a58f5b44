"""The gateway inside the test's own event loop: quick to start, and open to be looked into.

    async with InProcessGateway(discover=[upstream.url]) as gateway:
        client = AsyncOpenAI(base_url=gateway.base_url, api_key="none")
        ...
        assert gateway.span("chat fake-chat").attributes["gen_ai.usage.input_tokens"] == 3

It is the same ASGI application under the same uvicorn protocol as `understudy serve` runs; only the
process is shared.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.app import Application, create_app
from gateway.http.protocol import JoiningProtocol
from gateway.observability.exporters import resource_for
from gateway.observability.tracing import Tracing
from gateway.serving import KEEP_ALIVE_SECONDS
from gateway.settings import Settings
from tests.support.databases import sqlite_with_schema
from tests.support.gateway import HOST, free_port

START_SECONDS = 60.0  # on a machine that has other things to do
PATIENCE_SECONDS = 15.0


class InProcessGateway:
    """A gateway with these settings (keywords are the top-level sections).

    `environment` holds the `OTEL_*` variables that tracing reads; `traced=False` is a gateway
    without an exporter. `data_dir` is for tests about state. `models` are names that are waited
    for; the section `models` is given as `configured`.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        traced: bool = True,
        models: Sequence[str] | None = None,
        configured: Sequence[Mapping[str, Any]] = (),
        **sections: Any,
    ) -> None:
        self.port = free_port()
        server = {**sections.pop("server", {}), "host": HOST, "port": self.port}
        sections = {"data_dir": _data_dir(), **sections}
        sections |= {"server": server, "models": list(configured)}
        self.settings = msgspec.convert(sections, Settings)
        self._exporter = InMemorySpanExporter()
        self._environment = environment or {}
        self._traced = traced
        self._models = models
        self.application: Application
        self._server: uvicorn.Server
        self._task: asyncio.Task[None]

    @property
    def root_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    def client(self, **options: Any) -> httpx.AsyncClient:
        """An HTTP client whose paths begin at the root."""
        return httpx.AsyncClient(base_url=self.root_url, timeout=30, **options)

    # -- what telemetry said --------------------------------------------------------------------

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    async def span(self, name: str) -> ReadableSpan:
        """The last span of this name, as soon as it is there."""

        def found() -> ReadableSpan | None:
            return next((one for one in reversed(self.spans()) if one.name == name), None)

        await until(lambda: found() is not None, f"a span {name!r} (have {self._span_names()})")
        span = found()
        assert span is not None
        return span

    def metric(self, name: str, **labels: str) -> float:
        """A sample of `/metrics`, 0 where there is none."""
        value = self.application.metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value

    def _span_names(self) -> list[str]:
        return [span.name for span in self.spans()]

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._spare_the_migrations()
        provider = TracerProvider(resource=resource_for("test", self._environment))
        processors = [SimpleSpanProcessor(self._exporter)] if self._traced else []
        tracing = Tracing(provider=provider, processors=processors, environment=self._environment)
        self.application = create_app(self.settings, tracing)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.public(),
                host=HOST,
                port=self.port,
                http=JoiningProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        self._task = asyncio.create_task(self._server.serve())
        await until(lambda: self._server.started or self._task.done(), "the server", START_SECONDS)
        for name in self._models or ():
            await until(lambda name=name: self._knows(name), f"the model {name}", START_SECONDS)
        return self

    def _spare_the_migrations(self) -> None:
        """Begin with a database that is there: making its schema is a third of a start."""
        file = Path(self.settings.data_dir) / "understudy.db"
        if self.settings.database.url is None and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sqlite_with_schema(), file)

    def public(self) -> Any:
        """What is served; a subclass may put something around it."""
        return self.application.public

    def _knows(self, name: str) -> bool:
        return any(model.id == name for model in self.application.catalog.models())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        await self._task


@cache
def _data_dir() -> str:
    """What gateways share that keep nothing; a test about state gives a folder of its own."""
    folder = tempfile.mkdtemp(prefix="understudy-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


async def until(condition: Any, what: str, within: float = PATIENCE_SECONDS) -> None:
    """Wait until this is true."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"no {what} within {within:g} s")
        await asyncio.sleep(0.005)
