"""A load balancer as a Kubernetes Service is one: it gives each new connection to the next replica
that says it is ready, looks at none of the bytes, and tries nothing twice.

    async with Balancer([gateway.port, …]) as balancer:
        client = AsyncOpenAI(base_url=balancer.base_url, api_key="none", max_retries=0)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

from tests.support.gateway import HOST

LOOK_SECONDS = 0.1
_CHUNK = 65536


class Balancer:
    """Asks each replica's `/readyz` all the time; what it said last counts."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self.ready: set[int] = set()
        self._turns = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.port = 0
        self.refused: list[str] = []
        """What a client would be told nothing of but the end of its connection."""

    @property
    def root_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    async def until_ready(self, count: int, within: float = 60) -> None:
        """Wait until so many replicas are ready."""
        async with asyncio.timeout(within):
            while len(self.ready) < count:
                await asyncio.sleep(LOOK_SECONDS)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        for port in self._ports:
            self._keep(asyncio.create_task(self._look(port)))
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

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, port: int) -> None:
        """The probe of one replica."""
        async with httpx.AsyncClient(timeout=2) as client:
            while True:
                try:
                    answer = await client.get(f"http://{HOST}:{port}/readyz")
                    ready = answer.status_code == 200
                except httpx.HTTPError:
                    ready = False
                (self.ready.add if ready else self.ready.discard)(port)
                await asyncio.sleep(LOOK_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._keep(task)
        with contextlib.suppress(asyncio.CancelledError):  # the balancer ends
            ready = sorted(self.ready)
            try:
                if not ready:
                    raise ConnectionRefusedError("no replica is ready")
                port = ready[next(self._turns) % len(ready)]
                there, back = await asyncio.open_connection(HOST, port)
            except OSError as error:
                self.refused.append(str(error))
                writer.close()
                return
            await self._pass_on(reader, writer, there, back)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        """Until either side has closed."""
        ways = [
            asyncio.create_task(_copy(reader, back)),
            asyncio.create_task(_copy(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.close()
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
