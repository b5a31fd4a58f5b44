"""Finds headings, paragraphs, lists and tables among the lines of pages, with no model.

What it goes by: the size and weight of type, distances, bullets and numbers, gutters between
columns, what is repeated on top and bottom of pages, and the PDF's own table of contents. It can be
wrong, above all on magazines and forms; the text is all there in any case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

from msgspec import Struct

from adapters.docling.columns import GLYPHS, Line, PageLines, beside, columns, same_row

__all__ = ["Block", "Label", "Line", "PageLines", "arrange"]

Label = Literal["title", "heading", "text", "list_item", "table", "page_header", "page_footer"]

_BULLET = re.compile(rf"^([{GLYPHS}*-])\s*(?=\S)")
_NUMBERED = re.compile(r"^(\(?(?:\d{1,3}|[a-z]|[ivx]{1,4})[.)])\s+(?=\S)")
_SECTION_NUMBER = re.compile(r"^(\d{1,3}(?:\.\d{1,3})*)\.?\s+(?=[^\W\d_])")
_CHAPTER = re.compile(
    r"^(?:chapter|part|appendix|annex|kapitel|teil|anhang)\s+\w+\b", re.IGNORECASE
)
_PAGE_NUMBER = re.compile(
    r"^[-–—\s]*(?:page|seite|p\.)?\s*(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:/|of|von)\s*\d{1,5})?[-–—\s]*$",  # noqa: RUF001
    re.IGNORECASE,
)
_DOT_LEADER = re.compile(r"(?:\. ?){4}|…{2}")
"""Of a line in a table of contents."""
_LETTERS = re.compile(r"[^\W\d_]{2}")
_EDGE = 0.09
"""Headers and footers are in this share of a page's height."""
_LONGEST_HEADING = 180


class Block(Struct, kw_only=True):
    """Lines that belong together. ``level`` is a heading's; ``rows`` are a table's."""

    page: int
    label: Label
    text: str
    left: float
    top: float
    right: float
    bottom: float
    level: int = 1
    marker: str = ""
    size: float = 0.0
    bold: bool = False
    rows: list[list[str]] = []
    continues: bool = False
    """Whether it goes on with a paragraph of the column or page before."""


def arrange(
    pages: Sequence[PageLines], outline: Mapping[tuple[int, str], int] | None = None
) -> list[Block]:
    """The blocks of all pages in reading order, headers and footers among them."""
    body = _body_size(pages)
    repeated = _repeated(pages)
    blocks: list[Block] = []
    for page in pages:
        blocks.extend(_page(page, body, repeated, outline or {}))
    _set_levels(blocks, outline or {})
    _find_continued(blocks)
    return blocks


def _body_size(pages: Sequence[PageLines]) -> float:
    """The size of type that most characters have."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            sizes[round(line.size * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 10.0


# Headers and footers.


def _edge(page: PageLines, line: Line) -> Literal["page_header", "page_footer"] | None:
    if line.bottom < _EDGE * page.height:
        return "page_header"
    if line.top > (1 - _EDGE) * page.height:
        return "page_footer"
    return None


def _plain(text: str) -> str:
    """Without numbers, so that the lines of all pages are alike."""
    return re.sub(r"\d+", "#", " ".join(text.split()).lower())


def _repeated(pages: Sequence[PageLines]) -> set[str]:
    counts: Counter[str] = Counter()
    for page in pages:
        counts.update({_plain(line.text) for line in page.lines if _edge(page, line)})
    least = max(2, min(5, len(pages) // 4))
    return {text for text, count in counts.items() if count >= least}


# Reading order.


def _page(
    page: PageLines, body: float, repeated: set[str], outline: Mapping[tuple[int, str], int]
) -> list[Block]:
    headers: list[Block] = []
    footers: list[Block] = []
    upright: list[Line] = []
    turned: list[Line] = []
    for line in page.lines:
        edge = _edge(page, line)
        if edge and (_plain(line.text) in repeated or _PAGE_NUMBER.match(line.text)):
            (headers if edge == "page_header" else footers).append(_block(page, [line], edge))
        else:
            (upright if line.straight else turned).append(line)
    blocks = headers
    for column in columns(same_row(upright), 0):
        blocks.extend(_Column(page, column, body, outline).blocks())
    blocks.extend(_block(page, [line], "text") for line in turned)
    return blocks + footers


# Blocks.


class _Column:
    """Lines from top to bottom that become blocks."""

    def __init__(
        self,
        page: PageLines,
        lines: list[Line],
        body: float,
        outline: Mapping[tuple[int, str], int],
    ) -> None:
        self._page = page
        self._body = body
        self._outline = outline
        self._rows = _rows(lines)
        self._right = max((line.right for line in lines), default=0.0)
        gaps = [
            lower[0].top - upper[0].bottom
            for upper, lower in pairwise(self._rows)
            if abs(upper[0].size - lower[0].size) < 0.6
        ]
        self._gap = median(gaps) if gaps else 0.0

    def blocks(self) -> list[Block]:
        blocks: list[Block] = []
        paragraph: list[Line] = []
        position = 0

        def finish() -> None:
            if paragraph:
                blocks.append(self._paragraph(paragraph[:]))
                paragraph.clear()

        while position < len(self._rows):
            length = self._table_rows(position)
            if length:
                finish()
                blocks.append(_table(self._page, self._rows[position : position + length]))
                position += length
                continue
            for line in self._rows[position]:
                if paragraph and not self._goes_on(paragraph, line):
                    finish()
                paragraph.append(line)
            position += 1
        finish()
        return blocks

    def _table_rows(self, position: int) -> int:
        """How many rows from here on are a table's; 0 where it is none."""
        first = self._rows[position]
        if len(first) < 2:
            return 0
        end = position + 1
        while end < len(self._rows):
            upper, row = self._rows[end - 1], self._rows[end]
            if row[0].top - upper[0].bottom > 2.5 * first[0].size or len(row) < 2:
                break
            end += 1
        return end - position if end - position >= 2 else 0

    def _goes_on(  # noqa: PLR0911  (one reason after the other)
        self, paragraph: list[Line], line: Line
    ) -> bool:
        last = paragraph[-1]
        size = max(last.size, line.size)
        if abs(last.size - line.size) > 0.12 * size and not beside(last, line):
            return False
        if beside(last, line):
            return True
        gap = line.top - last.bottom
        heading = self._is_heading(paragraph)
        if gap > max(self._gap + 0.35 * size, 0.3 * size if self._gap < 0 else 0.0, 0.2 * size):
            return False
        if gap < -1.5 * size or line.bold != last.bold:
            return False
        if _BULLET.match(line.text) or _NUMBERED.match(line.text) or self._in_outline(line.text):
            return False
        if heading:
            return gap < 0.8 * size and not _SECTION_NUMBER.match(line.text)
        first = paragraph[0]
        listed = _BULLET.match(first.text) or _NUMBERED.match(first.text)
        if listed and line.left < first.left + 0.3 * size and gap > self._gap + 0.15 * size:
            return False
        indented = line.left - last.left > 0.8 * size and not listed
        short = last.right < self._right - 0.15 * (self._right - first.left)
        ended = last.text.endswith((".", "!", "?", ":", "。"))
        return not (indented and ended) and not (short and ended and len(paragraph) > 1)

    def _in_outline(self, text: str) -> bool:
        return (self._page.number, " ".join(text.split()).lower()) in self._outline

    def _is_heading(  # noqa: PLR0911  (one reason after the other)
        self, lines: Sequence[Line]
    ) -> bool:
        text = " ".join(line.text for line in lines)
        if len(text) > _LONGEST_HEADING or len(lines) > 3 or not _LETTERS.search(text):
            return False
        if _DOT_LEADER.search(text):
            return False
        if self._in_outline(text):
            return True
        if _BULLET.match(text):
            return False
        size = median(line.size for line in lines)
        if size >= 1.15 * self._body:
            return not text.endswith((",", ";"))
        bold = all(line.bold for line in lines)
        if size < 0.95 * self._body or not bold or text.endswith((".", ",", ";")):
            return False
        if _SECTION_NUMBER.match(text) or _CHAPTER.match(text):
            return True
        return len(lines) == 1 and len(text) < 100 and not text.endswith(":")

    def _paragraph(self, lines: list[Line]) -> Block:
        label: Label = "text"
        if self._is_heading(lines):
            label = "heading"
        elif _BULLET.match(lines[0].text) or _NUMBERED.match(lines[0].text):
            label = "list_item"
        return _block(self._page, lines, label)


def _rows(lines: list[Line]) -> list[list[Line]]:
    rows: list[list[Line]] = []
    for line in lines:
        if rows and beside(rows[-1][0], line) and line.left >= rows[-1][-1].right - 1:
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def _block(page: PageLines, lines: list[Line], label: Label) -> Block:
    text = lines[0].text
    for before, line in pairwise(lines):
        if before.hyphenated and line.text[:1].islower():
            text = text.removesuffix("-") + line.text
        elif text.endswith("-") and text[-2:-1].isalpha():
            text += line.text
        else:
            text += " " + line.text
    marker = ""
    if label == "list_item" and (match := _BULLET.match(text) or _NUMBERED.match(text)):
        marker, text = match.group(1), text[match.end() :]
    return Block(
        page=page.number,
        label=label,
        text=text,
        marker=marker,
        left=min(line.left for line in lines),
        top=min(line.top for line in lines),
        right=max(line.right for line in lines),
        bottom=max(line.bottom for line in lines),
        size=round(median(line.size for line in lines) * 2) / 2,
        bold=all(line.bold for line in lines),
    )


def _table(page: PageLines, rows: list[list[Line]]) -> Block:
    """Cells that overlap from left to right are in one column."""
    spans: list[list[float]] = []
    for line in sorted((line for row in rows for line in row), key=lambda line: line.left):
        if spans and line.left < spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], line.right)
        else:
            spans.append([line.left, line.right])
    cells = []
    for row in rows:
        texts = [""] * len(spans)
        for line in row:
            at = next(i for i, (_, right) in enumerate(spans) if line.left < right)
            texts[at] = f"{texts[at]} {line.text}".strip()
        cells.append(texts)
    block = _block(page, [line for row in rows for line in row], "table")
    block.rows = cells
    block.text = "\n".join(" ".join(filter(None, row)) for row in cells)
    return block


def _find_continued(blocks: list[Block]) -> None:
    """Paragraphs that a page or a column has cut in two."""
    before: Block | None = None
    for block in blocks:
        if block.label in {"page_header", "page_footer"}:
            continue
        if (
            before is not None
            and block.label == "text"
            and before.label in {"text", "list_item"}
            and (block.page == before.page + 1 or block.top < before.top)
            and not before.text.endswith((".", "!", "?", ":", "。"))
            and block.text[:1].islower()
            and abs(block.size - before.size) < 1
        ):
            block.continues = True
        before = block


# Levels of headings.


def _set_levels(blocks: list[Block], outline: Mapping[tuple[int, str], int]) -> None:
    """From the PDF's table of contents, from numbers such as 2.1, else from the size of type."""
    headings = [block for block in blocks if block.label == "heading"]
    if not headings:
        return
    _find_title(headings)
    headings = [block for block in headings if block.label == "heading"]
    styles: dict[tuple[float, bool], Counter[int]] = {}
    for block in headings:
        counts = styles.setdefault((block.size, block.bold), Counter())
        if (depth := _numbered_depth(block.text)) is not None:
            counts[depth] += 1
    ranks: dict[tuple[float, bool], int] = {}
    rank = 0
    for style in sorted(styles, key=lambda style: (-style[0], not style[1])):
        numbered = styles[style].most_common(1)
        rank = numbered[0][0] if numbered else min(rank + 1, 6)
        ranks[style] = rank
    for block in headings:
        known = outline.get((block.page, " ".join(block.text.split()).lower()))
        block.level = known or _numbered_depth(block.text) or ranks[block.size, block.bold]


def _numbered_depth(text: str) -> int | None:
    if _CHAPTER.match(text):
        return 1
    match = _SECTION_NUMBER.match(text)
    return min(match.group(1).count(".") + 1, 6) if match else None


def _find_title(headings: list[Block]) -> None:
    """The largest heading, where it is alone in its size, on the first page and has no number."""
    largest = max(headings, key=lambda block: block.size)
    alone = sum(1 for block in headings if block.size == largest.size) == 1
    others = len(headings) > 1
    if alone and others and largest.page == headings[0].page and not _numbered_depth(largest.text):
        largest.label = "title"
