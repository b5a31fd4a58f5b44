"""The SDK's client, set up so that no call takes for ever."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, ClassVar, Self

import urllib3
from minio import Minio
from minio.helpers import check_bucket_name
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError

from adapters.minio.failures import took_too_long
from gateway.settings import ObjectSettings, SettingsError

KEPT_CONNECTIONS = 64
"""Past so many, a connection is closed after its call; slow readers hold one each."""


class _Patient(HTTPConnection):
    """urllib3 sends under the limit for connecting, which is too short for a large part."""

    stall_seconds: ClassVar[float]

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.stall_seconds)
        super().send(data)


class _PatientOverTls(HTTPSConnection, _Patient):
    """The same; ``send`` is found behind that of HTTPSConnection, which has none."""


class _Retry(urllib3.Retry):
    """Tries again what was lost or put off, not what took too long: that may never end."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        # Refused connections are of a class below this one, and worth another try.
        if error and (type(error) is ConnectTimeoutError or took_too_long(error)):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def client_for(
    settings: ObjectSettings, *, connect_seconds: float, stall_seconds: float
) -> tuple[Minio, urllib3.PoolManager]:
    """The client and its connections, which are the caller's to clear.

    ``connect_seconds`` is for a connection, ``stall_seconds`` for each wait for bytes after that.
    Raises ``SettingsError`` where a setting can't be used.
    """
    if not settings.endpoint:
        raise SettingsError("objects.endpoint: needed where objects.kind is minio")
    if bool(settings.access_key) != bool(settings.secret_key):
        raise SettingsError("objects: access_key and secret_key are only of use together")
    connections = urllib3.PoolManager(
        maxsize=KEPT_CONNECTIONS,
        timeout=urllib3.Timeout(connect=connect_seconds, read=stall_seconds),
        retries=_Retry(
            total=3,
            connect=1,
            read=1,
            redirect=0,
            status=2,
            other=0,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=None,  # what is sent here may be sent twice
            raise_on_status=False,  # the last answer says more than "too many"
            respect_retry_after_header=False,  # the server doesn't say how long a caller waits
        ),
        ssl_context=_context(settings) if settings.secure else None,
    )
    connections.pool_classes_by_scheme = _pools(stall_seconds)
    try:
        client = Minio(
            settings.endpoint,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            secure=settings.secure,
            region=settings.region,
            http_client=connections,
        )
    except ValueError as error:
        raise SettingsError(f"objects.endpoint or objects.region: {error}") from error
    try:
        check_bucket_name(settings.bucket, strict=True)
    except ValueError as error:
        raise SettingsError(f"objects.bucket: {error}") from error
    if settings.path_style:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    else:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client, connections


def _context(settings: ObjectSettings) -> ssl.SSLContext:
    """Certificates are verified against the system's trust store and ``ca_file``."""
    context = ssl.create_default_context()
    if settings.ca_file:
        try:
            context.load_verify_locations(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"objects.ca_file can't be used: {error}") from error
    return context


def _pools(stall_seconds: float) -> dict[str, Any]:
    limit = {"stall_seconds": stall_seconds}
    plain = {"ConnectionCls": type("_Plain", (_Patient,), limit)}
    safe = {"ConnectionCls": type("_Safe", (_PatientOverTls,), limit)}
    return {
        "http": type("_PlainPool", (HTTPConnectionPool,), plain),
        "https": type("_SafePool", (HTTPSConnectionPool,), safe),
    }
