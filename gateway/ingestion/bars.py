"""How an upload goes, shown on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.ingestion.folder import LocalFile
from gateway.ingestion.upload_folder import Outcome

__all__ = ["Bars"]


class Bars:
    """Two bars, of files and of bytes, and a line for each file that fails."""

    def __init__(self, files: Sequence[LocalFile], *, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._files = self._progress.add_task("files", total=len(files), what="")
        self._bytes = self._progress.add_task(
            "bytes", total=sum(one.size for one in files), what=""
        )
        self._sent = self._finished = 0

    def read(self, size: int) -> None:
        self._sent += size
        self._progress.update(self._bytes, advance=size, what=_size(self._sent))

    def done(self, outcome: Outcome) -> None:
        self._finished += 1
        self._progress.update(self._files, advance=1, what=str(self._finished))
        if outcome.action not in ("add", "replace"):
            self._progress.update(self._bytes, advance=outcome.file.size)
        if outcome.error and self._console.is_terminal:
            self._progress.console.print(
                f"{outcome.file.name}: {outcome.error}", style="red", markup=False
            )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
