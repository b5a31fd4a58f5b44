"""The files that a batch leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gateway.batches.answers import AnswerWriter
from gateway.batches.claims import BatchClaims, Claim
from gateway.batches.lines import parse_line, read_lines
from gateway.batches.results import LineSink
from gateway.database.tables import FileRow
from gateway.errors import NotFound
from gateway.files.schemas import NewFile
from gateway.files.service import FileService
from gateway.http.download import Content
from gateway.ports import ObjectStore

__all__ = ["BatchFiles"]

_LINES_AT_ONCE = 100


class BatchFiles:
    """Reads a batch's input, and writes its output and error file."""

    def __init__(
        self,
        claims: BatchClaims,
        files: FileService,
        objects: ObjectStore,
        answers: AnswerWriter,
        *,
        longest_line: int,
    ) -> None:
        self._claims = claims
        self._files = files
        self._objects = objects
        self._answers = answers
        self._longest_line = longest_line

    async def input(self, claim: Claim) -> Content:
        """Raises ``NotFound`` where it was deleted or has expired."""
        return await self._files.content(claim.principal, claim.input_file_id)

    async def fill_with_expired(self, claim: Claim) -> None:
        """Every line that isn't done gets a result that says so, as far as the input is there."""
        done = await self._claims.done_lines(claim)
        sink = LineSink(self._claims, claim)
        try:
            content = await self.input(claim)
            async with aclosing(read_lines(content, self._longest_line)) as lines:
                async for line in lines:
                    if line.number not in done and line.content is not None:
                        request = parse_line(line.content, claim.endpoint)
                        await sink.add(self._answers.expired(line.number, request.custom_id))
        except NotFound:
            pass  # nobody can tell their ids any more
        await sink.flush()

    async def write(self, claim: Claim, *, failed: bool) -> FileRow | None:
        """The file of the lines that failed, or of those that didn't; ``None`` without any.

        Its row is the caller's to add, or its object the caller's to :meth:`discard`.
        """
        first = await self._page(claim, failed=failed, after=0)
        if not first:
            return None
        kind = "error" if failed else "output"
        described = NewFile(
            filename=f"{claim.batch_id}_{kind}.jsonl",
            purpose="batch_output",
            media_type="application/jsonl",
            expires_after=claim.output_seconds,
        )
        lines = self._lines(claim, first, failed=failed)
        return await self._files.write(claim.project, lines, lambda: described)

    async def discard(self, *files: FileRow | None) -> None:
        await self._objects.delete([file.object_key for file in files if file is not None])

    async def _lines(
        self, claim: Claim, page: list[Any], *, failed: bool
    ) -> AsyncGenerator[bytes, None]:
        while page:
            yield b"".join(result.encode() + b"\n" for _, result in page)
            page = await self._page(claim, failed=failed, after=page[-1][0])

    async def _page(self, claim: Claim, *, failed: bool, after: int) -> list[Any]:
        return await self._claims.results(claim, failed=failed, after=after, limit=_LINES_AT_ONCE)
