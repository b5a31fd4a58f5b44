"""An HTTP transport that connects to what was checked, and to nothing else.

The name is resolved once, each address is put to the policy, and the connection goes to an address
that passed: a name that resolves to another address a moment later (DNS rebinding) is of no use.
TLS still verifies the name. Redirects are followed by nobody here, and an answer ends at a number
of bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Any

import httpcore2
import httpx2

__all__ = ["Admits", "AnswerTooLarge", "GuardedTransport", "HostRefused", "anywhere"]

Admits = Callable[[str, IPv4Address | IPv6Address], bool]

MOST_CONNECTIONS = 32
_FAULTS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)


class HostRefused(httpx2.TransportError):
    """None of the host's addresses may be connected to."""


class AnswerTooLarge(httpx2.StreamError):
    """The answer has more bytes than are read."""


class AnswerBroken(httpx2.StreamError):
    """The connection ended before the answer did."""


def anywhere(_: str, __: IPv4Address | IPv6Address) -> bool:
    """For servers that the configuration names."""
    return True


class GuardedTransport(httpx2.AsyncBaseTransport):
    """``max_bytes`` bounds the body of each answer, ``max_event_stream_bytes`` that of a GET.

    What fails before an answer's head is an ``httpx2.TransportError``, and what fails within its
    body an ``httpx2.StreamError``. No message of either names an address.
    """

    def __init__(
        self,
        admits: Admits,
        context: ssl.SSLContext,
        *,
        max_bytes: int,
        max_event_stream_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_event_stream_bytes = max_event_stream_bytes or max_bytes
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=MOST_CONNECTIONS,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(admits),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        # Bytes are counted as they come, so what comes must be what is meant.
        request.headers["accept-encoding"] = "identity"
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(asked)
        except httpcore2.ConnectError as error:
            raise _connect_error(error) from None
        except httpcore2.TimeoutException:
            raise httpx2.TimeoutException("It took too long to answer.") from None
        except _FAULTS:
            raise httpx2.NetworkError("The connection broke before there was an answer.") from None
        limit = self._max_event_stream_bytes if request.method == "GET" else self._max_bytes
        response = httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_BoundedStream(answer.stream, limit),
            extensions=answer.extensions,
        )
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("The answer is compressed, which was not asked for.")
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._stream:
                self._left -= len(block)
                if self._left < 0:
                    raise AnswerTooLarge(f"The answer is larger than {self._limit} bytes.")
                yield block
        except _FAULTS:
            raise AnswerBroken("The connection ended before the answer did.") from None

    async def aclose(self) -> None:
        await self._stream.aclose()


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, asks, and connects to the very address that was asked about."""

    def __init__(self, admits: Admits) -> None:
        self._admits = admits
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (the interface's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._addresses(host, port, timeout)
        admitted = [one for one in addresses if self._admits(host, ip_address(one))]
        if not admitted:
            raise HostRefused("its host is at no address that may be connected to")
        last: Exception | None = None
        for address in admitted:
            try:
                return await self._plain.connect_tcp(
                    address,
                    port,
                    timeout=timeout,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        assert last is not None  # the loop has run
        raise last

    async def _addresses(
        self,
        host: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109  (as above)
    ) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(
                loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout
            )
        except TimeoutError:
            raise httpcore2.ConnectTimeout("the host's name was not resolved in time") from None
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the host's name can't be resolved") from None
        # A scope (fe80::1%eth0) is cut off: such addresses are refused without it too.
        return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002  (the interface's)
        timeout: float | None = None,  # noqa: ASYNC109, ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        raise HostRefused("a Unix socket can't be connected to")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _connect_error(error: httpcore2.ConnectError) -> httpx2.TransportError:
    """With the reason of a failed TLS handshake, which somebody has to mend."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", None) or cause.reason or "handshake failed"
            return httpx2.ConnectError(f"TLS failed: {reason}")
        cause = cause.__cause__ or cause.__context__
    said = str(error)
    known = said if said.startswith("the host's name") else "no connection came about"
    return httpx2.ConnectError(known)
