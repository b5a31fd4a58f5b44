"""Files on this machine that are to go into a vector store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

__all__ = ["LocalFile", "find_files"]

_BLOCK_BYTES = 1024 * 1024


class LocalFile(Struct, frozen=True, kw_only=True):
    """A file to be uploaded. ``name`` is its path as the store keeps it, ``folder/sub/file.pdf``:
    the same wherever the folder lies.
    """

    path: Path
    name: str
    size: int

    def sha256(self) -> str:
        """Of the content. Reads all of it."""
        digest = sha256()
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()


def find_files(paths: Iterable[Path]) -> list[LocalFile]:
    """All files at and below these, in order, without hidden ones and without links to folders.

    Raises ``ValueError`` where two of them would have the same name in the store.
    """
    found: dict[str, LocalFile] = {}
    for path in paths:
        for one in _below(path.resolve()):
            other = found.setdefault(one.name, one)
            if other.path != one.path:
                raise ValueError(
                    f"{other.path} and {one.path} would both be '{one.name}' in the store. "
                    "Give the folder that holds both."
                )
    return [found[name] for name in sorted(found)]


def _below(path: Path) -> Iterator[LocalFile]:
    if path.is_file():
        yield _local(path, path.name)
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield _local(file, file.relative_to(path.parent).as_posix())


def _local(path: Path, name: str) -> LocalFile:
    return LocalFile(path=path, name=name, size=path.stat().st_size)
