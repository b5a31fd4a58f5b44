"""The ``Bucket`` port on an S3-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from adapters.minio.client import client_for
from gateway.ports import BucketFailed, BucketObject, BucketObjectChanged
from gateway.settings import ObjectSettings, SettingsError

__all__ = ["S3Bucket"]

_CONNECT_SECONDS = 10.0
_STALL_SECONDS = 60.0
_BLOCK_BYTES = 1024 * 1024
_LISTED_AT_ONCE = 1000
_GONE = frozenset({"NoSuchKey", "NoSuchObject", "PreconditionFailed"})
_HELP = {
    "AccessDenied": "the access key may not read this bucket",
    "InvalidAccessKeyId": "there is no such access key",
    "NoSuchBucket": "there is no such bucket",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


class S3Bucket:
    """Each call is one thread's, for as long as it takes."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        *,
        access_key: str | None,
        secret_key: str | None,
        region: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        """``endpoint`` is a URL. Raises ``BucketFailed`` where one of these can't be used."""
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise BucketFailed(
                f"The S3 endpoint is '{endpoint}'; expected http://host:port or https://…"
            )
        settings = ObjectSettings(
            kind="minio",
            endpoint=address.netloc,
            access_key=access_key,
            secret_key=secret_key,
            bucket=bucket,
            region=region,
            secure=address.scheme == "https",
            ca_file=ca_file,
        )
        try:
            self._client, self._connections = client_for(
                settings, connect_seconds=_CONNECT_SECONDS, stall_seconds=_STALL_SECONDS
            )
        except SettingsError as error:
            raise BucketFailed(str(error).replace("objects.", "S3 ")) from error
        self._bucket = bucket

    async def list(self, prefix: str) -> AsyncIterator[BucketObject]:
        found = self._client.list_objects(self._bucket, prefix=prefix or None, recursive=True)
        while True:
            page = await asyncio.to_thread(_some, found)
            for one in page:
                yield one
            if len(page) < _LISTED_AT_ONCE:
                return

    async def download(self, wanted: BucketObject, to: Path) -> None:
        await asyncio.to_thread(self._download, wanted, to)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._connections.clear)

    def _download(self, wanted: BucketObject, to: Path) -> None:
        with _translated(wanted.key):
            answer = self._client.get_object(
                self._bucket, wanted.key, request_headers={"If-Match": f'"{wanted.etag}"'}
            )
            try:
                with to.open("wb") as file:
                    written = 0
                    for block in answer.stream(_BLOCK_BYTES):
                        written += file.write(block)
            finally:
                answer.close()
                answer.release_conn()
        if written != wanted.size:  # not every server knows If-Match
            raise BucketObjectChanged(f"{wanted.key} has changed since it was listed.")


def _some(found: Iterator[Any]) -> list[BucketObject]:
    """The next ones; fewer than ``_LISTED_AT_ONCE`` where these are the last."""
    objects: list[BucketObject] = []
    with _translated(""):
        while len(objects) < _LISTED_AT_ONCE:
            page = list(islice(found, _LISTED_AT_ONCE - len(objects)))
            if not page:
                break
            objects += [
                BucketObject(
                    key=one.object_name, etag=(one.etag or "").strip('"'), size=one.size or 0
                )
                for one in page
                if not one.is_dir and one.size and not one.object_name.endswith("/")
            ]
    return objects


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in _GONE:
            raise BucketObjectChanged(f"{key} has changed since it was listed.") from None
        said = error.code if error.code and error.code.isalnum() else "an error"
        more = f": {_HELP[said]}" if said in _HELP else ""
        raise BucketFailed(f"The S3 server answered {said}{more}.") from error
    except (HTTPError, MinioException, ParseError, ValueError, OSError) as error:
        raise BucketFailed(f"The S3 server can't be read ({type(error).__name__}).") from error
