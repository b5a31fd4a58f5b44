"""The plain text of a document, with its headings and pages kept beside it.

The plain text of a DoclingDocument is its items in reading order with an empty line between them;
the items of a list are one line each. Headers and footers of pages are left out. A table is
``row, column = value`` for each value, as docling's own chunker writes it, so that a part of a
table can be understood by itself.

Read from the JSON, with nothing of docling: its chunkers need transformers and tree-sitter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from adapters.docling.text import clean
from gateway.ports import ConversionFailed

__all__ = ["Piece", "Reading", "read_document"]

_HEADINGS = {"title", "section_header"}
_LISTS = {"list", "ordered_list"}
_KINDS = ("texts", "tables", "pictures", "groups", "key_value_items", "form_items")
_DEEPEST = 200
"""Levels of nesting; a document with more is not one that a person wrote."""


class Piece(Struct, frozen=True):
    """An item's text. ``level`` is 0 for a title, from 1 for headings, else ``None``."""

    text: str
    level: int | None = None
    pages: tuple[int, ...] = ()
    joined: bool = False
    """Whether it follows the piece before in the next line, as the items of a list do."""


class Reading:
    """A document's plain text and what is where in it, by positions in characters."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        parts: list[str] = []
        self.sections: list[int] = []
        """Where headings begin."""
        self.items: list[int] = []
        """Where other items begin, but not right after a heading."""
        self._starts: list[int] = []
        self._pages: list[tuple[int, ...]] = []
        self._paths: list[tuple[str, ...]] = []
        self._is_heading: list[bool] = []
        path: dict[int, str] = {}
        length = 0
        for piece in pieces:
            if parts:
                gap = "\n" if piece.joined else "\n\n"
                parts.append(gap)
                length += len(gap)
            follows_heading = bool(self._is_heading) and self._is_heading[-1]
            if piece.level is not None:
                path = {level: text for level, text in path.items() if level < piece.level}
                path[piece.level] = " ".join(piece.text.split())
            if not follows_heading:
                (self.sections if piece.level is not None else self.items).append(length)
            self._starts.append(length)
            self._pages.append(piece.pages)
            self._paths.append(tuple(path.values()))
            self._is_heading.append(piece.level is not None)
            parts.append(piece.text)
            length += len(piece.text)
        self.text = "".join(parts)

    def headings_at(self, start: int, end: int) -> list[str]:
        """The path of headings over the first thing from ``start`` on that is none itself."""
        first, last = self._between(start, end)
        for position in range(first, last):
            if not self._is_heading[position]:
                return list(self._paths[position])
        return list(self._paths[last - 1]) if last > first else []

    def pages_between(self, start: int, end: int) -> list[int]:
        first, last = self._between(start, end)
        return sorted({page for pages in self._pages[first:last] for page in pages})

    def _between(self, start: int, end: int) -> tuple[int, int]:
        first = max(bisect_right(self._starts, start) - 1, 0)
        if first + 1 < len(self._starts) and not self.text[start : self._starts[first + 1]].strip():
            first += 1
        return first, bisect_left(self._starts, end)


def read_document(path: Path) -> Reading:
    """What a converter has written. Raises ``ConversionFailed`` where it is no document."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ConversionFailed(
            "server_error", "The stored conversion of the file can't be read."
        ) from error
    name = document.get("schema_name") if isinstance(document, dict) else None
    if name == "PlainText":
        reading = Reading(())
        reading.text = document["text"]
        return reading
    if name != "DoclingDocument":
        raise ConversionFailed("server_error", "The stored conversion is no DoclingDocument.")
    return Reading(_Walk(document).pieces())


class _Walk:
    """Goes through a DoclingDocument's body in reading order."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._seen: set[str] = set()
        self._pieces: list[Piece] = []
        self._captions = {
            reference["$ref"]
            for kind in ("tables", "pictures", "texts")
            for item in document.get(kind) or ()
            for field in ("captions", "footnotes")
            for reference in item.get(field) or ()
        }

    def pieces(self) -> list[Piece]:
        self._children(self._document.get("body") or {}, 0)
        return self._pieces

    def _item(self, reference: dict[str, Any]) -> dict[str, Any] | None:
        """``{"$ref": "#/texts/3"}`` to what is there."""
        parts = str(reference.get("$ref", "")).split("/")
        if len(parts) != 3 or parts[1] not in _KINDS or not parts[2].isdigit():
            return None
        items = self._document.get(parts[1]) or []
        index = int(parts[2])
        item = items[index] if index < len(items) else None
        return item if isinstance(item, dict) else None

    def _children(self, parent: dict[str, Any], depth: int, *, in_list: bool = False) -> None:
        if depth > _DEEPEST:
            return
        for reference in parent.get("children") or ():
            name = reference.get("$ref")
            item = self._item(reference)
            if item is None or name in self._seen or name in self._captions:
                continue
            self._seen.add(name)
            self._visit(item, depth, in_list=in_list)

    def _visit(self, item: dict[str, Any], depth: int, *, in_list: bool) -> None:
        if item.get("content_layer", "body") != "body":
            return
        label = item.get("label")
        if label == "inline":
            self._add(self._inline(item), item, joined=in_list)
        elif label in _LISTS:
            self._children(item, depth + 1, in_list=True)
        elif label in {"table", "document_index"} and "data" in item:
            captions = self._captions_of(item)
            self._add("\n".join([*captions, _table_text(item["data"])]), item)
        elif label in {"picture", "chart"}:
            self._add("\n".join(self._captions_of(item)), item)
        elif label in _HEADINGS:
            level = 0 if label == "title" else max(1, int(item.get("level") or 1))
            self._add(item.get("text") or self._inline(item), item, level=level)
            self._children(item, depth + 1)
        elif label == "list_item":
            text = item.get("text") or self._inline(item)
            mark = (item.get("marker") or "-") if item.get("enumerated") else "-"
            before = len(self._pieces)
            joined = in_list and bool(self._pieces) and self._pieces[-1].level is None
            self._add(f"{mark} {text}" if text.strip() else "", item, joined=joined)
            self._children(item, depth + 1, in_list=len(self._pieces) > before or in_list)
        else:
            text = item.get("text") or ""
            self._add(text if isinstance(text, str) else "", item)
            self._children(item, depth + 1)

    def _inline(self, item: dict[str, Any]) -> str:
        """The text of a paragraph that is stored in parts: links, bold words."""
        parts = []
        for reference in item.get("children") or ():
            child = self._item(reference)
            if child is None or reference["$ref"] in self._seen:
                continue
            if child.get("label") in _LISTS:
                continue
            self._seen.add(reference["$ref"])
            if child.get("label") == "inline":
                parts.append(self._inline(child))
            else:
                parts.append(child.get("text") or "")
        return " ".join(part for part in parts if part)

    def _captions_of(self, item: dict[str, Any]) -> list[str]:
        found = (
            self._item(reference)
            for field in ("captions", "footnotes")
            for reference in item.get(field) or ()
        )
        return [text for one in found if one is not None and (text := one.get("text"))]

    def _add(
        self,
        text: str,
        item: dict[str, Any],
        *,
        level: int | None = None,
        joined: bool = False,
    ) -> None:
        text = clean(text).strip()
        if not text:
            return
        pages = sorted({int(prov["page_no"]) for prov in item.get("prov") or ()})
        self._pieces.append(Piece(text, level, tuple(pages), joined and bool(self._pieces)))


def _table_text(data: dict[str, Any]) -> str:
    """``row, column = value`` line by line; cells as they are where there is but one column."""
    rows = int(data.get("num_rows") or 0)
    columns = int(data.get("num_cols") or 0)
    grid: dict[tuple[int, int], str] = {}
    for cell in data.get("table_cells") or ():
        text = " ".join((cell.get("text") or "").split())
        across = range(cell["start_col_offset_idx"], min(cell["end_col_offset_idx"], columns))
        down = range(cell["start_row_offset_idx"], min(cell["end_row_offset_idx"], rows))
        for row in down:
            for column in across:
                grid.setdefault((row, column), text)
    if rows == 1 or columns == 1:
        return "\n".join(
            line
            for row in range(rows)
            if (line := ", ".join(filter(None, (grid.get((row, at)) for at in range(columns)))))
        )
    names = _column_names(data, grid, columns)
    lines = []
    for row in range(max(1, _header_rows(data)), rows):
        first = grid.get((row, 0), "")
        values = [
            f"{first}, {names[at]} = {value}" if first else f"{names[at]} = {value}"
            for at in range(1, columns)
            if (value := grid.get((row, at)))
        ]
        lines.append(". ".join(values) + "." if values else first)
    return "\n".join(line for line in lines if line) or ". ".join(filter(None, names))


def _header_rows(data: dict[str, Any]) -> int:
    """How many rows from the top are headers."""
    headers = {
        cell["start_row_offset_idx"]
        for cell in data.get("table_cells") or ()
        if cell.get("column_header")
    }
    rows = sorted(headers)
    if not rows or rows[0] != 0:
        return 0
    return next(
        (at for at, (one, two) in enumerate(pairwise(rows), 1) if two != one + 1), len(rows)
    )


def _column_names(
    data: dict[str, Any], grid: dict[tuple[int, int], str], columns: int
) -> list[str]:
    headers = max(1, _header_rows(data))
    names = []
    for column in range(columns):
        parts = dict.fromkeys(filter(None, (grid.get((row, column)) for row in range(headers))))
        names.append(".".join(parts))
    return names
