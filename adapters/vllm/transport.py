"""httpx over the same connections: for the few calls that aren't on the data path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from adapters.vllm.connection import StaleConnection
from adapters.vllm.pool import ConnectionPool
from gateway.errors import UpstreamTimeout

_OURS = frozenset({b"connection", b"transfer-encoding", b"authorization"})


class PoolTransport(httpx.AsyncBaseTransport):
    """What makes ``httpx.AsyncClient`` use a :class:`ConnectionPool`, so that discovery has the
    same TLS, credentials and limits as traffic has. Errors are the gateway's own, not httpx's.
    """

    def __init__(self, pool: ConnectionPool, credentials: Callable[[], bytes]) -> None:
        self._pool = pool
        self._credentials = credentials

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        head = b"".join(
            [
                request.method.encode() + b" " + request.url.raw_path + b" HTTP/1.1\r\n",
                *(
                    name.lower() + b": " + value + b"\r\n"
                    for name, value in request.headers.raw
                    if name.lower() not in _OURS
                ),
                self._credentials(),
                b"\r\n",
            ]
        )
        seconds = request.extensions["timeout"]["read"]
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._exchange(head, body, fresh=False)
                except StaleConnection:
                    return await self._exchange(head, body, fresh=True)
        except TimeoutError as error:
            raise UpstreamTimeout(f"No answer from the model server in {seconds:g} s.") from error

    async def _exchange(self, head: bytes, body: bytes, *, fresh: bool) -> httpx.Response:
        connection = await self._pool.acquire(fresh=fresh)
        try:
            await connection.request(head, body)
            return httpx.Response(
                connection.status,
                headers=connection.headers,
                content=b"".join(connection.take_blocks()),
            )
        finally:
            self._pool.release(connection)
