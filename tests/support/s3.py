"""A real S3 server for any test that asks for `s3`, and a relay to mistreat the way to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.real.s3.server import S3Server

HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for the whole run; a test keeps to a bucket of its own."""
    with S3Server() as server:
        yield server


class Relay:
    """Passes bytes on to a server, over TLS if told to, and counts who is connected.

    With ``cut_after``, a connection is cut once so many bytes have come back on it.
    """

    def __init__(self, cut_after: int | None = None) -> None:
        self.endpoint = ""
        self.open = 0
        self.cut_after = cut_after

    async def pass_on(self, reader, writer, host: str, port: int) -> None:
        self.open += 1
        try:
            there, back = await asyncio.open_connection(host, port)
            ways = [
                asyncio.create_task(self._copy(reader, back, None)),
                asyncio.create_task(self._copy(there, writer, self.cut_after)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.close()
        finally:
            writer.close()
            self.open -= 1

    @staticmethod
    async def _copy(reader, writer, limit: int | None) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while (limit is None or limit > 0) and (data := await reader.read(65536)):
                writer.write(data if limit is None else data[:limit])
                await writer.drain()
                limit = None if limit is None else limit - len(data)


@asynccontextmanager
async def relay(
    endpoint: str, *, tls: ssl.SSLContext | None = None, cut_after: int | None = None
) -> AsyncIterator[Relay]:
    """Stands before the server at ``endpoint``, at an endpoint of its own."""
    host, _, port = endpoint.rpartition(":")
    made = Relay(cut_after)
    tasks: set[asyncio.Task] = set()

    async def connected(reader, writer) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await made.pass_on(reader, writer, host, int(port))
        except asyncio.CancelledError:
            pass  # the relay ends
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(connected, HOST, 0, ssl=tls)
    made.endpoint = f"{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
