"""Three gateways that answer as one: each request goes to the next.

Test modules that make an ``InProcessGateway`` are run with a ``SprayedGateway`` in its place (see
``tests/replicas``). One replica is in the test's process, so that a test can look into what all of
them share; two are in processes of their own. PostgreSQL, S3 and Milvus are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

import gateway.app
from tests.real.s3.server import S3Server
from tests.support.gateway import HOST
from tests.support.inprocess import InProcessGateway, until
from tests.support.postgres import PostgresServer

REPLICAS = 3
START_SECONDS = 60

_MOST_HEAD_BYTES = 1024 * 1024
_CHUNK = 65536
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)
_vector_index = gateway.app._vector_index  # before any test puts another one in its place


class Places:
    """Where all replicas keep what they share."""

    def __init__(self, postgres: PostgresServer, template: str, s3: S3Server, milvus: str) -> None:
        self._postgres = postgres
        self._template = template
        self._s3 = s3
        self._milvus = milvus

    @contextmanager
    def shared(self) -> Iterator[dict[str, Any]]:
        """Sections of a configuration: a database and a bucket of their own."""
        url = self._postgres.create_database(self._template)
        try:
            yield {
                "database": {"url": url},
                "objects": self._s3.settings(bucket=f"replicas-{uuid.uuid4().hex}"),
                "vectors": {"uri": self._milvus},
            }
        finally:
            self._postgres.drop_database(url)


class SprayedGateway(InProcessGateway):
    """What a test knows as its gateway; ``places`` is set while such tests run."""

    places: ClassVar[Places | None] = None

    def __init__(self, *, models: Sequence[str] | None = None, **sections: Any) -> None:
        assert self.places is not None
        self._stack = contextlib.AsyncExitStack()
        self._shared = self._stack.enter_context(self.places.shared())
        self._sections = {**sections, **self._shared}
        super().__init__(**self._sections)
        self._wanted = tuple(models or ())
        self._front = Sprayer()

    @property
    def root_url(self) -> str:
        return f"http://{HOST}:{self._front.port}"

    async def __aenter__(self) -> Self:
        try:
            others = self._stack.enter_context(_processes(self._sections, self._wanted))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gateway.app, "_vector_index", _vector_index)
                await super().__aenter__()
            self._stack.push_async_callback(super().__aexit__, None, None, None)
            await _knows(self, self._wanted)
            ports = [self.port, *await asyncio.to_thread(lambda: [one() for one in others])]
            self._front.ports = itertools.cycle(ports)
            await self._stack.enter_async_context(self._front)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()


class Sprayer:
    """Gives each connection to the next port, and makes it one for a single request.

    A client that leaves is gone upstream at once.
    """

    def __init__(self) -> None:
        self.ports: Iterator[int] = iter(())
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, HOST, 0, limit=_MOST_HEAD_BYTES, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                there, back = await asyncio.open_connection(HOST, next(self.ports))
                head = _CONNECTION.sub(b"", head)
                back.write(head[:-2] + b"connection: close\r\n\r\n")
                await _exchange(reader, writer, there, back)
            finally:
                writer.close()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
) -> None:
    """Until the answer is over, or the client has left."""
    up = asyncio.create_task(_send(reader, back))
    down = asyncio.create_task(_receive(there, writer))
    try:
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and not up.result():
            await down
    finally:
        for way in (up, down):
            way.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        back.transport.abort()


async def _send(reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> bool:
    """Pass the request on; whether the client has left, rather than the gateway."""
    while True:
        try:
            data = await reader.read(_CHUNK)
        except OSError:
            return True
        if not data:
            return True
        try:
            back.write(data)
            await back.drain()
        except OSError:
            return False


async def _receive(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await there.read(_CHUNK):
            writer.write(data)
            await writer.drain()


@contextmanager
def _processes(sections: Mapping[str, Any], models: Sequence[str]) -> Iterator[list[Any]]:
    """The other replicas; each item waits for one to be ready and gives its port."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started: list[BaseProcess] = []
    try:
        waits = []
        for number in range(1, REPLICAS):
            here, there = context.Pipe(duplex=False)
            own = dict(sections)
            if "data_dir" in sections:  # nothing that is shared is in it
                own["data_dir"] = f"{sections['data_dir']}-replica-{number}"
            process = context.Process(target=_run, args=(own, models, there), daemon=True)
            process.start()
            started.append(process)
            there.close()
            waits.append(lambda here=here: _port(here))
        yield waits
    finally:
        for process in started:
            process.kill()
            process.join()


async def _knows(running: InProcessGateway, models: Sequence[str]) -> None:
    """Wait until it has found these."""
    for name in models:
        await until(lambda name=name: running._knows(name), f"the model {name}", START_SECONDS)


def _port(pipe: Connection) -> int:
    assert pipe.poll(START_SECONDS), "a replica did not start"
    return int(pipe.recv())


def _run(sections: Mapping[str, Any], models: Sequence[str], ready: Connection) -> None:
    async def serve() -> None:
        async with InProcessGateway(**sections) as running:
            await _knows(running, models)
            ready.send(running.port)
            await asyncio.Event().wait()

    asyncio.run(serve())
