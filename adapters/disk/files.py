"""Files under one folder, each there whole or not at all. Everything here blocks."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from gateway.ports import ObjectMissing, StoredObject

WRITING = ".writing"
"""Where files are while they are written: on the same file system, so that they can be renamed."""

ATTEMPTS = 100
_KEY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


class Folder:
    """Files by key. Raises ``OSError``, and ``ValueError`` for what is no key."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._writing = self.root / WRITING

    def make(self) -> None:
        """The folder, if it isn't there, and a file in it to see that it can be written."""
        self._writing.mkdir(parents=True, exist_ok=True)
        self.remove(self.begin())

    def path(self, key: str) -> Path:
        """The file of a key: always below the root, and never one that is being written."""
        names = key.split("/")
        if not _KEY.fullmatch(key) or "." in names or ".." in names or names[0] == WRITING:
            raise ValueError(f"not a key: {key!r}")
        return self.root.joinpath(*names)

    # Writing.

    def begin(self) -> FileIO:
        """A new file under a name of its own."""
        return FileIO(os.fspath(self._writing / secrets.token_hex(16)), "xb")

    def write(self, file: FileIO, blocks: Sequence[bytes]) -> None:
        for block in blocks:
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]

    def commit(self, file: FileIO, key: str) -> None:
        """Put the file under its key, so that it is there after a power cut too."""
        target = self.path(key)
        os.fsync(file.fileno())
        file.close()
        fresh = self._move(Path(os.fsdecode(file.name)), target)
        _sync(target.parent)
        for folder in fresh:
            _sync(folder.parent)

    def _move(self, source: Path, target: Path) -> Sequence[Path]:
        """Rename; the folders that had to be made for it. A delete may take them away again."""
        for _ in range(ATTEMPTS):
            fresh = [
                folder
                for folder in target.parents
                if folder.is_relative_to(self.root) and not folder.exists()
            ]
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
            except (FileExistsError, FileNotFoundError):
                # A folder that was there has gone: even `exist_ok` may then find that it exists.
                if not source.exists():
                    raise
                continue
            return fresh
        raise OSError(f"{target.parent} vanishes as often as it is made")

    def remove(self, file: FileIO) -> None:
        """Forget a file that was begun."""
        file.close()
        with suppress(FileNotFoundError):
            Path(os.fsdecode(file.name)).unlink()

    # Reading.

    def open(self, key: str) -> FileIO:
        """Raises ``ObjectMissing``, also where only a folder has this name."""
        path = self.path(key)
        try:
            return FileIO(os.fspath(path), "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissing(key) from None

    def read(self, file: FileIO, start: int, count: int) -> bytes:
        file.seek(start)
        return file.read(count) or b""

    def size(self, key: str) -> int:
        with self.open(key) as file:
            return os.fstat(file.fileno()).st_size

    # The rest.

    def delete(self, keys: Sequence[str]) -> None:
        """Remove these files, and the folders that are empty without them."""
        for key in keys:
            path = self.path(key)
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            for folder in path.parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue  # somebody else has, or it never was; what is above may be empty too
                except OSError:
                    break  # there is something in it

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every file whose key begins so; what comes or goes meanwhile may be in it or not."""
        above = prefix.rpartition("/")[0]
        waiting = [self.path(above) if above else self.root]
        while waiting:
            for entry in _entries(waiting.pop()):
                if entry.path == os.fspath(self._writing):
                    continue
                key = os.path.relpath(entry.path, self.root)
                try:
                    if not key.startswith(prefix):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        found = entry.stat(follow_symlinks=False)
                        yield StoredObject(key=key, size=found.st_size, modified=found.st_mtime)
                except FileNotFoundError:
                    continue

    def sweep(self, older_than_seconds: float) -> int:
        """Remove files that nobody has written to for so long, and that were never finished."""
        before = time.time() - older_than_seconds
        swept = 0
        for entry in _entries(self._writing):
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime <= before:
                    Path(entry.path).unlink()
                    swept += 1
        return swept


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _sync(folder: Path) -> None:
    """Make a folder's entries outlast a power cut; one that is gone again has none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
