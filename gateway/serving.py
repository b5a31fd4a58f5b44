"""The process: sockets, workers, signals and the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from uvicorn.config import STARTUP_FAILURE

from gateway.configuration import load_settings
from gateway.draining import CLOSE_SECONDS, DrainingServer, Ending
from gateway.http.protocol import JoiningProtocol
from gateway.observability.logging import configure_logging
from gateway.reloading import Reloading
from gateway.settings import ServerSettings, Settings
from gateway.supervisor import Heartbeat, Supervisor

if TYPE_CHECKING:
    from gateway.app import Application

logger = logging.getLogger(__name__)

CONFIG_VARIABLE = "UNDERSTUDY_CONFIG"
"""Where worker processes find the configuration file."""

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s for which load balancers keep idle connections: they should close first."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_GARBAGE_THRESHOLDS = (50_000, 20, 50)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Exits the process with another status than 0 on failure."""
    wait_to_reload()
    configure_logging(settings.telemetry)
    allow_many_sockets()
    keep_freed_memory()
    if settings.server.workers == 1:
        _serve_here(settings)
        return
    # Each worker builds its own application from the same file and environment.
    directory = Path(settings.data_dir) / "metrics"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    listener = uvicorn.Config("", **_uvicorn_options(settings.server)).bind_socket()
    sys.exit(Supervisor(run_worker, listener, settings.server.workers).run())


def run_worker(listener: socket.socket, heartbeat: Heartbeat) -> None:
    """What a worker process runs; called by the supervisor."""
    config = os.environ.get(CONFIG_VARIABLE)
    settings = load_settings(Path(config) if config else None)
    configure_logging(settings.telemetry)
    keep_freed_memory()
    _forget_dead_workers(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    _serve_here(settings, listener, heartbeat)


def _serve_here(
    settings: Settings,
    listener: socket.socket | None = None,
    heartbeat: Heartbeat | None = None,
) -> None:
    """Serve in this process, on this socket where there is one."""
    application = build(settings)

    def tick() -> None:
        if heartbeat is not None:
            heartbeat.beat()
            if heartbeat.alone:
                ending.begin()

    ending = Ending(application.drain, tick=tick, replaceable=heartbeat is not None)
    server = DrainingServer(
        uvicorn.Config(application.public, **_uvicorn_options(settings.server)),
        settings.server,
        ending=ending,
        retire=application.retire,
    )
    server.run(None if listener is None else [listener])
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def work(settings: Settings) -> None:
    """Do the work on files until SIGTERM or SIGINT, without the API."""
    wait_to_reload()
    configure_logging(settings.telemetry)
    allow_many_sockets()
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(settings))


async def _work(settings: Settings) -> None:
    from gateway.app import create_app  # here as in `build`

    application = create_app(settings)
    application.around(_running(application))
    ending = Ending(application.drain)
    with ending.listened_for():
        async with application.working():
            logger.info("Working on files, %d at once", settings.ingestion.workers)
            await ending.wait(math.inf, lambda: ending.asked)
            ending.limit(CLOSE_SECONDS)
            logger.info("Ending: what is in work goes back to the queue")


def build(settings: Settings) -> Application:
    """The application of one process."""
    from gateway.app import create_app  # here, so that workers set up prometheus_client first

    application = create_app(settings)
    application.around(_running(application))
    return application


def _forget_dead_workers(directory: Path) -> None:
    """Drop what workers that are gone left in gauges: their requests and connections are gone too.

    Done by the worker that takes a dead one's place. Counts and histograms stay.
    """
    for file in directory.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)  # only asks whether it is there
        except ProcessLookupError:
            file.unlink(missing_ok=True)


def wait_to_reload() -> None:
    """Until somebody listens for SIGHUP, it ends no process. What has changed meanwhile is read
    then.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def allow_many_sockets() -> None:
    """Raise the limit of open files to what the system allows: each stream needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # not allowed: go on with what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_freed_memory() -> None:
    """Have glibc keep a few megabytes of freed memory, where the C library is glibc.

    Blocks of a large answer come and go all the time. By default glibc gives each back to the
    kernel, and the page faults of getting it again cost more than relaying the answer does.
    """
    if hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 * 1024 * 1024)
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, 16 * 1024 * 1024)


@asynccontextmanager
async def _running(application: Application) -> AsyncIterator[None]:
    """What surrounds the time in which a process takes requests."""
    settings = application.settings.server
    config = os.environ.get(CONFIG_VARIABLE)
    reloading = Reloading(
        Path(config) if config else None,
        application.settings,
        application.reconfigure,
        application.metrics.routing.reloaded,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reloading.running())
        if application.management is not None and settings.management_port is not None:
            await stack.enter_async_context(
                _management_server(application.management, settings.host, settings.management_port)
            )
        # What is alive now stays alive: taking it out of the collector's sight, and collecting
        # less often, takes its pauses out of the slowest answers.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        yield


@asynccontextmanager
async def _management_server(app: Any, host: str, port: int) -> AsyncIterator[None]:
    """A second, small server on the management port, shared by all workers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, reuse_port=True)
    server = _QuietServer(
        uvicorn.Config(
            app,
            http=JoiningProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([listener]))
        try:
            yield
        finally:
            server.should_exit = True


class _QuietServer(uvicorn.Server):
    """Leaves the signals to the server of the API."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_options(settings: ServerSettings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "http": JoiningProtocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "backlog": 4096,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
    }
