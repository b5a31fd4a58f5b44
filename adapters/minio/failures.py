"""What an S3 server or the way to it may fail with, as the errors of the gateway.

The messages go to callers: they hold the server's error code and the name of a setting, never an
address, a key or what the server wrote.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as TLSError

from gateway.errors import (
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.ports import ObjectMissing

_MISSING = frozenset({"NoSuchKey", "NoSuchObject"})
_BUSY_STATUS = frozenset({429, 502, 503, 504, 507})
_BUSY = frozenset({"RequestTimeout", "ServiceUnavailable", "SlowDown", "TooManyRequests"})
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})
_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_ADVICE = {
    "AccessDenied": "the access key may not do this; its policy has to allow it",
    "AuthorizationHeaderMalformed": "objects.region is probably another one",
    "InvalidRegion": "objects.region is probably another one",
    "NoSuchBucket": "the bucket (objects.bucket) does not exist",
    "RequestTimeTooSkewed": "this machine's clock and the server's differ",
}

_FOREIGN = " and something that is not S3; objects.endpoint may be another server's"


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the SDK raises inside as ``ObjectMissing`` or an ``UpstreamError``."""
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise ObjectMissing(error.object_name or "") from None
        raise _refused(error) from error
    except InvalidResponseError as error:
        raise _by_status(error._code, _FOREIGN) from error  # noqa: SLF001  (shown nowhere else)
    except ServerError as error:
        raise _by_status(error.status_code, "") from error
    except (HTTPError, MinioException, ParseError, ValueError, OSError) as error:
        raise _failed(error) from error


def _refused(error: S3Error) -> UpstreamError:
    """The server answered in S3's terms."""
    said = error.code if error.code and error.code.isalnum() else "an error without a code"
    if said in _CREDENTIALS:
        return UpstreamError(
            f"The object store answered {said}: objects.access_key or objects.secret_key is wrong."
        )
    if said in _FULL:
        return UpstreamUnavailable(f"The object store is full: it answered {said}.")
    if said in _BUSY or error.response.status in _BUSY_STATUS:
        return UpstreamUnavailable(f"The object store can't answer now: {said}.")
    advice = f": {_ADVICE[said]}" if said in _ADVICE else ""
    return UpstreamError(f"The object store answered {said}{advice}.")


def _failed(error: Exception) -> UpstreamError:
    """There was no answer, or it was not S3's."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, (TLSError, ssl.SSLError)):
        return UpstreamUnreachable(
            "No safe connection to the object store: its certificate is not from an authority that "
            "is trusted here (objects.ca_file), or it doesn't speak TLS (objects.secure)."
        )
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return UpstreamUnreachable("The object store can't be reached.")
    if took_too_long(error):
        return UpstreamTimeout("The object store took too long.")
    if isinstance(error, (HTTPError, OSError)):
        return UpstreamUnavailable("The object store closed the connection.")
    return UpstreamError(f"The object store gave an unknown answer{_FOREIGN}.")


def took_too_long(error: Exception) -> bool:
    """Whether a wait for the server ran out, for its answer or for it to take what is sent."""
    if isinstance(error, ProtocolError):
        return any(isinstance(one, TimeoutError) for one in error.args)
    return isinstance(error, (ReadTimeoutError, TimeoutError))


def _by_status(status: int, advice: str) -> UpstreamError:
    if status in _BUSY_STATUS:
        return UpstreamUnavailable(f"The object store can't answer now: status {status}.")
    return UpstreamError(f"The object store answered with status {status}{advice}.")
