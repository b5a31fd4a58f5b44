"""Tables as files that are streamed: CSV and JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence

from litestar.response import Stream

__all__ = ["csv_lines", "exported", "wants_csv"]

_TYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}


def csv_lines(rows: Sequence[Sequence[object]]) -> bytes:
    """No spreadsheet takes a text of it for a formula."""
    text = io.StringIO()
    csv.writer(text).writerows([[_harmless(cell) for cell in row] for row in rows])
    return text.getvalue().encode()


def exported(blocks: AsyncIterator[bytes], form: str, name: str) -> Stream:
    """The answer that a browser saves as ``name.csv``."""
    return Stream(
        blocks,
        media_type=_TYPES[form],
        headers={
            "content-disposition": f'attachment; filename="{name}.{form}"',
            "x-content-type-options": "nosniff",
        },
    )


def wants_csv(accept: str) -> bool:
    """Whether an ``accept`` header asks for CSV before JSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
