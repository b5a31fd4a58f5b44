"""Workers and gateways in processes of their own, made to be killed.

    with MortalProcesses() as processes:
        worker = processes.worker(sections)          # what `understudy worker` runs
        worker.kill()
        gateway = processes.gateway(sections)        # the API too; `gateway.base_url`

They are forked from a server that has imported everything, so that one starts in a moment. Vectors
are in a file beside the database, which all of them share.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

import gateway.app
from gateway.responses.event_log import EventLog
from gateway.responses.performance import Performer
from gateway.serving import _work
from gateway.settings import Settings
from tests.support.fake_tool_servers import FakeToolServers, give_tools
from tests.support.file_index import FileVectorIndex
from tests.support.inprocess import InProcessGateway

Death = Literal["at the start", "before the end is written", "after the end is written"]


def shared_index(settings: Settings, *_: object) -> FileVectorIndex:
    """In place of Milvus."""
    return FileVectorIndex(Path(settings.data_dir) / "index.db")


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _prepare(death: Death | None) -> None:
    gateway.app._vector_index = shared_index  # type: ignore[assignment]
    finish: Callable[..., Awaitable[None]] = EventLog.finish

    async def finish_and_die(*arguments: Any) -> None:
        await finish(*arguments)
        _die()

    match death:
        case "at the start":
            Performer.perform = _die  # type: ignore[method-assign,assignment]
        case "before the end is written":
            EventLog.finish = _die  # type: ignore[method-assign,assignment]
        case "after the end is written":
            EventLog.finish = finish_and_die  # type: ignore[method-assign]


def _run_worker(sections: Mapping[str, Any], death: Death | None) -> None:
    _prepare(death)
    asyncio.run(_work(msgspec.convert(sections, Settings)))


def _run_gateway(sections: Mapping[str, Any], ready: Connection) -> None:
    async def serve() -> None:
        async with InProcessGateway(**sections) as running:
            give_tools(running.application, FakeToolServers(hang=True))
            ready.send(running.base_url)
            await asyncio.Event().wait()

    _prepare(None)
    asyncio.run(serve())


class MortalProcess:
    def __init__(self, process: BaseProcess, base_url: str = "") -> None:
        self._process = process
        self.base_url = base_url

    def kill(self) -> None:
        """SIGKILL, as when a node is lost."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """SIGTERM, as at a deploy; doesn't wait."""
        self._process.terminate()

    def join(self, within: float = 10.0) -> int | None:
        """Wait for its end; the exit status."""
        self._process.join(within)
        return self._process.exitcode


class MortalProcesses:
    """Those that were started end with the block."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._started: list[BaseProcess] = []

    def worker(self, sections: Mapping[str, Any], death: Death | None = None) -> MortalProcess:
        return MortalProcess(self._start(_run_worker, dict(sections), death))

    def gateway(self, sections: Mapping[str, Any]) -> MortalProcess:
        here, there = self._context.Pipe()
        process = self._start(_run_gateway, dict(sections), there)
        assert here.poll(30), "the gateway did not start"
        return MortalProcess(process, here.recv())

    def _start(self, main: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = self._context.Process(target=main, args=arguments, daemon=True)
        process.start()
        self._started.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.join()
