"""An S3 server as the application sees it: the ``ObjectStore`` port.

The ``minio`` SDK blocks, so each of its calls runs in a thread. A thread is held for one call and
never for a whole object: a caller who sends or reads slowly costs a part in memory or an open
connection, and no thread.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any, TypeVar, cast

from minio.datatypes import Object, Part
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from urllib3.response import BaseHTTPResponse

from adapters.minio.client import client_for
from adapters.minio.failures import translated
from adapters.threads import Threads
from gateway.errors import UpstreamError
from gateway.ports import StoredObject
from gateway.settings import ObjectSettings

BLOCK_BYTES = 1024 * 1024
PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes for a part: what each upload in progress holds in memory. An object may
have 10,000 parts, so 48 GiB."""

PAGE = 1000
CONNECT_SECONDS = 5.0
STALL_SECONDS = 60.0

_NO_SUCH_RANGE = "InvalidRange"
_MADE_MEANWHILE = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou"})

_TYPE = "application/octet-stream"

ResultT = TypeVar("ResultT")


class MinioObjectStore:
    """One bucket of an S3 server. Owns its threads and connections.

    ``connect_seconds`` is the limit for a connection, ``stall_seconds`` for every wait after that:
    a server that hangs costs a caller no more.
    """

    def __init__(
        self,
        settings: ObjectSettings,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._bucket = settings.bucket
        self._client, self._connections = client_for(
            settings, connect_seconds=connect_seconds, stall_seconds=stall_seconds
        )
        self._threads = Threads(settings.threads, name="object", patience=stall_seconds)

    async def start(self) -> None:
        await self._run(self._find_or_make)

    def _find_or_make(self) -> None:
        """A listing tells more than a HEAD, whose refusal has no body: wrong key, or no bucket."""
        try:
            self._look()
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
        else:
            return
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code == "AccessDenied":
                raise UpstreamError(
                    f"The bucket '{self._bucket}' (objects.bucket) does not exist, and the access "
                    "key may not make it. Make it, or allow s3:CreateBucket."
                ) from error
            if error.code not in _MADE_MEANWHILE:
                raise
            self._look()

    def _look(self) -> None:
        next(self._client._list_objects(self._bucket, max_keys=1), None)  # noqa: SLF001

    # Writing.

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> int:
        """What fits one part is one call; more goes up in parts, one at a time.

        Cancelled while the last call is on its way, this waits for its end, and the object may be
        there: as if it had been cancelled a moment later.
        """
        size = 0
        upload: str | None = None
        parts: list[Part] = []
        try:
            async with aclosing(_parts(blocks)) as source:
                async for part, is_last in source:
                    size += len(part)
                    if is_last and upload is None:
                        await self._run(self._put_whole, key, part)
                        return size
                    if upload is None:
                        upload = await self._run(
                            self._begin, key, undo=lambda begun: self._abort(key, begun)
                        )
                    number = len(parts) + 1
                    etag = await self._run(self._put_part, key, part, upload, number)
                    parts.append(Part(number, etag))
            await self._run(self._finish, key, upload, parts)
        except BaseException:
            if upload is not None:
                await self._threads.settle(self._run(self._abort, key, upload))
            raise
        return size

    # The SDK's put_object would hold a thread while it waits for the next block; these are the
    # calls that it is made of.

    def _put_whole(self, key: str, data: bytes) -> None:
        self._client._put_object(self._bucket, key, data, {"Content-Type": _TYPE})  # noqa: SLF001

    def _begin(self, key: str) -> str:
        return self._client._create_multipart_upload(self._bucket, key, {})  # noqa: SLF001

    def _put_part(self, key: str, data: bytes, upload: str, number: int) -> str:
        return self._client._upload_part(self._bucket, key, data, None, upload, number)  # noqa: SLF001

    def _finish(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """S3 may say 200 before it is done and then fail, which the SDK doesn't look at."""
        done = self._client._complete_multipart_upload(self._bucket, key, upload, [*parts])  # noqa: SLF001
        if not done.etag:
            raise UpstreamError("The object store could not put the parts of an object together.")

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client._abort_multipart_upload(self._bucket, key, upload)  # noqa: SLF001
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise

    # Reading.

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The next block is fetched when it is asked for; until then the kernel reads ahead, and a
        reader who stops makes the server wait.
        """
        if end is not None and end <= start:
            await self.size(key)  # S3 has no empty range; the key must be there all the same
            return
        response = await self._run(self._open, key, start, end, undo=_close)
        if response is None:
            return
        try:
            while block := await self._run(
                response.read, BLOCK_BYTES, interrupt=lambda: _interrupt(response)
            ):
                yield block
        except BaseException:  # closed early or cancelled too; one that was read whole is reused
            await self._threads.settle(self._threads.run(_close, response))
            raise

    def _open(self, key: str, start: int, end: int | None) -> BaseHTTPResponse | None:
        """``None`` where the range begins behind the object's end."""
        length = 0 if end is None else end - start
        try:
            return self._client.get_object(self._bucket, key, offset=start, length=length)
        except S3Error as error:
            if error.code == _NO_SUCH_RANGE:
                return None
            raise

    async def size(self, key: str) -> int:
        found = await self._run(self._client.stat_object, self._bucket, key)
        return found.size or 0

    # The rest.

    async def delete(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), PAGE):
            await self._run(self._delete, keys[first : first + PAGE])

    def _delete(self, keys: Sequence[str]) -> None:
        failed = list(
            self._client.remove_objects(self._bucket, (DeleteObject(key) for key in keys))
        )
        if codes := {error.code for error in failed} - {"NoSuchKey"}:
            raise UpstreamError(
                f"The object store removed not all of {len(keys)} objects: {min(codes)}."
            )

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        found = self._client.list_objects(self._bucket, prefix, recursive=True)
        while page := await self._run(lambda: [*islice(found, PAGE)]):
            for one in page:
                if not one.is_dir and one.object_name is not None:
                    yield _stored(one, one.object_name)

    async def sweep(self, older_than_seconds: float) -> int:
        """MinIO itself removes unfinished uploads after a day; other servers keep them."""
        return await self._run(self._sweep, time.time() - older_than_seconds)

    def _sweep(self, before: float) -> int:
        swept = 0
        marker: str | None = None
        while True:
            page = self._client._list_multipart_uploads(self._bucket, key_marker=marker)  # noqa: SLF001
            for upload in page.uploads:
                begun = upload.initiated_time
                if upload.upload_id and begun and begun.timestamp() <= before:
                    self._abort(upload.object_name, upload.upload_id)
                    swept += 1
            marker = page.next_key_marker
            if not (page.is_truncated and marker):
                return swept

    async def aclose(self) -> None:
        await self._threads.aclose()
        self._connections.clear()

    async def _run(
        self,
        call: Callable[..., ResultT],
        *arguments: Any,
        undo: Callable[[ResultT], None] | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> ResultT:
        with translated():
            return await self._threads.run(call, *arguments, undo=undo, interrupt=interrupt)


async def _parts(blocks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[bytes, bool]]:
    """The same bytes in parts, each with whether it is the last one, which alone may be shorter.

    There is always a last one, if only an empty one.
    """
    part = bytearray()
    async for block in blocks:
        rest = memoryview(block)
        while rest:
            if len(part) == PART_BYTES:
                yield cast("bytes", part), False
                part = bytearray()
            room = PART_BYTES - len(part)
            part += rest[:room]
            rest = rest[room:]
    yield cast("bytes", part), True


def _interrupt(response: BaseHTTPResponse) -> None:
    """Let a thread that waits for bytes go on, to find that there are none."""
    with suppress(OSError, RuntimeError, ValueError):  # it has ended meanwhile
        response.shutdown()


def _close(response: BaseHTTPResponse | None) -> None:
    if response is not None:
        response.close()
        response.release_conn()


def _stored(one: Object, key: str) -> StoredObject:
    modified = one.last_modified.timestamp() if one.last_modified else 0.0
    return StoredObject(key=key, size=one.size or 0, modified=modified)
