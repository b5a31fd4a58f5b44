"""A folder for files in work, which is empty again when they are done, also after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["Workspace"]


class Workspace:
    """Folders below ``data_dir/work``: one for each process, in it one for each file in work.

    A process holds a lock on a file beside its folder for as long as it lives, so that another
    one sees which folders are nobody's any more.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "work"
        self._name = uuid.uuid4().hex
        self._lock: int | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take a folder for this process, and remove those of processes that were killed."""
        await asyncio.to_thread(self._open)
        try:
            yield
        finally:
            await asyncio.to_thread(self._close)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """An empty folder, removed with all in it when the block ends."""
        path = self._root / self._name / uuid.uuid4().hex
        await asyncio.to_thread(path.mkdir, parents=True)
        try:
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def _open(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        # Locked before it has its name, so that nobody takes it for a dead process's.
        unnamed = self._root / f"{self._name}.new"
        self._lock = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self._root / f"{self._name}.lock")
        for lock in self._root.glob("*.lock"):
            if lock.stem != self._name:
                self._remove_if_dead(lock)

    def _remove_if_dead(self, lock: Path) -> None:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # another process has just removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it lives
        else:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _close(self) -> None:
        shutil.rmtree(self._root / self._name, ignore_errors=True)
        (self._root / f"{self._name}.lock").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
