"""A folder as the application sees it: the ``ObjectStore`` port."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from adapters.disk.files import Folder
from adapters.threads import Threads
from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.ports import StoredObject

BLOCK_BYTES = 1024 * 1024
PAGE = 1000
PATIENCE_SECONDS = 60.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

ResultT = TypeVar("ResultT")


class DiskObjectStore:
    """Objects as files under ``folder``, their keys as paths. Owns its threads.

    Several processes may share the folder, a network file system included as long as it renames
    atomically.
    """

    def __init__(self, folder: Path, *, threads: int = 16) -> None:
        self._files = Folder(folder)
        self._threads = Threads(threads, name="object", patience=PATIENCE_SECONDS)

    async def start(self) -> None:
        try:
            await self._threads.run(self._files.make)
        except OSError as error:
            raise UpstreamError(
                f"The folder for objects can't be written: {self._files.root}: {error.strerror}. "
                "Let this user write there, or name another one in objects.path."
            ) from error

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> int:
        """Cancelled while the file is put under its key, this waits for the end of that, and the
        object may be there: as if it had been cancelled a moment later.
        """
        self._files.path(key)
        file = await self._run(self._files.begin, undo=self._files.remove)
        size = 0
        waiting: list[bytes] = []
        count = 0
        try:
            async for block in blocks:
                waiting.append(block)
                count += len(block)
                if count >= BLOCK_BYTES:  # a thread for each 64 KiB would cost more than the write
                    await self._run(self._files.write, file, waiting)
                    size += count
                    waiting, count = [], 0
            await self._run(self._files.write, file, waiting)
            await self._run(self._files.commit, file, key)
        except BaseException:
            await self._threads.settle(self._run(self._files.remove, file))
            raise
        return size + count

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        file = await self._run(self._files.open, key, undo=FileIO.close)
        try:
            while end is None or start < end:
                count = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - start)
                block = await self._run(self._files.read, file, start, count)
                if not block:
                    return
                yield block
                start += len(block)
        finally:
            await self._threads.settle(self._threads.run(file.close))

    async def size(self, key: str) -> int:
        return await self._run(self._files.size, key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._run(self._files.delete, keys)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        found = self._files.list(prefix)
        while page := await self._run(lambda: [*islice(found, PAGE)]):
            for one in page:
                yield one

    async def sweep(self, older_than_seconds: float) -> int:
        return await self._run(self._files.sweep, older_than_seconds)

    async def aclose(self) -> None:
        await self._threads.aclose()

    async def _run(
        self,
        call: Callable[..., ResultT],
        *arguments: Any,
        undo: Callable[[ResultT], None] | None = None,
    ) -> ResultT:
        with _translated():
            return await self._threads.run(call, *arguments, undo=undo)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what the file system raises inside as an ``UpstreamError``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UpstreamUnavailable("The object store is full.") from error
        raise UpstreamError(f"The object store failed: {error.strerror or error}.") from error
