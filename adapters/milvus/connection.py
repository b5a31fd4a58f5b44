"""The way to one Milvus: a client, threads of its own, time limits, and coming back."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from adapters.milvus.errors import CollectionMissing, CollectionNotLoaded, translate
from adapters.milvus.lite import LiteOwner
from gateway.errors import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.settings import VectorSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

__all__ = ["Call", "Connection"]

ResultT = TypeVar("ResultT")
Call = Callable[["MilvusClient", float], ResultT]
"""Runs in a thread, with the client and the seconds that are left."""

_SCHEMES = ("http", "https", "tcp", "unix")
_READERS = 16
_WRITERS = 4
"""Apart, so that a search never waits for a thread that writes."""

_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 20.0
"""How long a call waits for Lite's process to come back; it starts in 1 to 3 seconds."""

_RETRY_PAUSE = 0.1
_NEVER_MS = 2**31 - 1
_SERVER_OPTIONS: dict[str, int] = {
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,  # else a new channel inherits an old one's back-off
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_LITE_OPTIONS: dict[str, Any] = {
    **_SERVER_OPTIONS,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 1000,
    # Its server would take pings on a quiet connection for abuse; the system knows when it dies.
    "grpc.keepalive_time_ms": _NEVER_MS,
    "grpc.keepalive_permit_without_calls": 0,
}


class Connection:
    """Calls run in threads: the synchronous client's, which is as quick as the other one and
    never packs rows on the event loop.

    The client is made by the first call and again after it could not be made; it comes back by
    itself once it was connected. ``generation`` counts the times that the connection was lost.
    """

    def __init__(self, settings: VectorSettings, *, lite_folder: Path) -> None:
        uri = settings.uri
        self.lite = uri is None or urlsplit(uri).scheme not in _SCHEMES
        self._owner = LiteOwner(Path(uri) if uri else lite_folder) if self.lite else None
        self.generation = 0
        self._settings = settings
        self._limit = settings.timeout_seconds
        self._secrets = _secrets(settings)
        self._client: MilvusClient | None = None
        self._connecting = threading.Lock()
        self._failure: tuple[float, Exception] | None = None
        self._closed = False
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="milvus-read")
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="milvus-write")

    async def read(self, call: Call[ResultT]) -> ResultT:
        """What the call returns, within the time limit.

        Raises ``CollectionMissing``, ``CollectionNotLoaded`` or a ``GatewayError``. While Lite's
        process is away the call is made again and again for a while; it must be idempotent.
        """
        return await self._run(self._readers, call)

    async def write(self, call: Call[ResultT]) -> ResultT:
        """The same for what takes longer."""
        return await self._run(self._writers, call)

    async def aclose(self) -> None:
        """Close the client, and end Lite's process if this process owns it."""
        self._closed = True
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._close)

    # On the event loop.

    async def _run(self, pool: ThreadPoolExecutor, call: Call[ResultT]) -> ResultT:
        now = time.monotonic()
        end = now + self._limit
        retry_until = min(end, now + _RETRY_SECONDS) if self.lite else now
        while True:
            if self._closed:
                raise _closed()
            try:
                async with asyncio.timeout(end - now + 1.0):  # the client's own limit comes first
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(pool, self._attempt, call, end)
            except TimeoutError:
                raise UpstreamTimeout("The vector database did not answer in time.") from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._closed and task is not None and not task.cancelling():
                    raise _closed() from None  # it waited for a thread
                raise
            except UpstreamUnavailable:
                self.generation += 1
                now = time.monotonic()
                if now + _RETRY_PAUSE > retry_until:
                    raise
                await asyncio.sleep(_RETRY_PAUSE)

    # In threads.

    def _attempt(self, call: Call[ResultT], end: float) -> ResultT:
        try:
            client = self._client or self._connect()
            # None left, after a long wait for a thread, is told by the client as well.
            return call(client, max(0.001, end - time.monotonic()))
        except (GatewayError, CollectionMissing, CollectionNotLoaded):
            raise
        except Exception as error:
            if self._closed:
                raise _closed() from error
            raise translate(error, lite=self.lite, secrets=self._secrets) from error

    def _connect(self) -> MilvusClient:
        """The client; those who waited while another one failed to make it fail with it."""
        asked = time.monotonic()
        with self._connecting:
            if self._client is not None:
                return self._client
            if self._failure is not None and self._failure[0] >= asked:
                raise self._failure[1]
            if self._closed:
                raise _closed()
            try:
                self._client = self._new_client()
            except Exception as error:
                self._failure = (time.monotonic(), error)
                raise
            return self._client

    def _new_client(self) -> MilvusClient:
        client_class = _client_class()
        limit = min(_CONNECT_SECONDS, self._limit)
        if self._owner is not None:
            self._owner.start()
            return client_class(
                uri=self._owner.address,
                timeout=limit,
                dedicated=True,
                grpc_options=_LITE_OPTIONS,
            )
        settings = self._settings
        return client_class(
            uri=settings.uri or "",
            token=settings.token or "",
            db_name=settings.database or "",
            timeout=limit,
            dedicated=True,
            grpc_options=_SERVER_OPTIONS,
            **_tls(settings),
        )

    def _close(self) -> None:
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._owner is not None:
            self._owner.close()


def _closed() -> UpstreamUnavailable:
    return UpstreamUnavailable("The connection to the vector database is closed.")


def _client_class() -> type[MilvusClient]:
    """Imported when it is first needed: it takes a second and 60 MB."""
    # Read by gRPC as it is loaded: it would write lines of its own to standard error, about the
    # processes that are started beside it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # The SDK loads a file `.env` from wherever it finds one into the environment.
    disabled = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise UpstreamError(
            f"The client of the vector database is not installed: {error}"
        ) from None
    finally:
        if disabled is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = disabled
    # It prints every error with its stack; here errors are raised, and logged where they end.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    found: type[MilvusClient] = MilvusClient
    return found


def _tls(settings: VectorSettings) -> dict[str, str]:
    """The SDK's names. It takes a client's certificate only together with an authority's."""
    authority = settings.ca_file
    if urlsplit(settings.uri or "").scheme != "https":
        return {}
    if authority is None:
        authority = ssl.get_default_verify_paths().cafile
    if settings.client_cert and settings.client_key:
        if authority is None:
            raise UpstreamError("vectors.client_cert needs vectors.ca_file on this system.")
        return {
            "ca_pem_path": authority,
            "client_pem_path": settings.client_cert,
            "client_key_path": settings.client_key,
        }
    return {} if authority is None else {"server_pem_path": authority}


def _secrets(settings: VectorSettings) -> list[str]:
    """What may not show up in a message, longest first."""
    tokens = [settings.token or "", urlsplit(settings.uri or "").password or ""]
    parts = {part for token in tokens for part in (token, token.rpartition(":")[2]) if part}
    encoded = {base64.b64encode(part.encode()).decode() for part in parts}
    return sorted(parts | encoded, key=len, reverse=True)
