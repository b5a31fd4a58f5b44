"""The lines of a PDF's pages, with their places and type sizes. Needs pypdfium2 only."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from adapters.docling.layout import Line, PageLines
from adapters.docling.text import clean
from gateway.ports import ConversionFailed

__all__ = ["has_images", "load_page", "open_pdf", "outline", "page_lines"]

_BOLD = re.compile(r"bold|black|heavy|semibold|demi|-bd|cmbx|sfbx", re.IGNORECASE)
_LINE_END_HYPHENS = frozenset({0x02, 0xAD, 0xFFFE})
"""What pdfium gives for a hyphen at the end of a line."""
_FORCE_BOLD = 1 << 18
_MOST_CHARACTERS = 500_000
"""On one page; a page with more is a drawing made of text."""


@contextmanager
def open_pdf(source: Path, max_pages: int) -> Iterator[pypdfium2.PdfDocument]:
    """The PDF, after the cheap checks. Raises ``ConversionFailed`` where there is nothing to read.

    A password that only forbids printing or copying is no hindrance.
    """
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        raise _unreadable(error) from error
    try:
        pages = len(document)
        if pages > max_pages:
            raise ConversionFailed(
                "invalid_file",
                f"The PDF has {pages} pages, more than ingestion.max_pages ({max_pages}). "
                "Split it.",
            )
        if pages == 0:
            raise ConversionFailed(
                "invalid_file", "The PDF has no pages: it is damaged or was cut off."
            )
        yield document
    finally:
        document.close()


def _unreadable(error: pypdfium2.PdfiumError) -> ConversionFailed:
    reason = str(error).lower()
    if "password" in reason:
        return ConversionFailed(
            "invalid_file",
            "The PDF is encrypted and needs a password. Remove it and upload again.",
        )
    if "security" in reason:
        return ConversionFailed(
            "unsupported_file", "The PDF is encrypted in a way that can't be read."
        )
    return ConversionFailed("invalid_file", "The PDF is damaged or was cut off: it can't be read.")


def outline(document: pypdfium2.PdfDocument) -> dict[tuple[int, str], int]:
    """The PDF's own table of contents: page (from 1) and title in lower case to a level from 1."""
    levels: dict[tuple[int, str], int] = {}
    try:
        for bookmark in document.get_toc(max_depth=6):
            destination = bookmark.get_dest()
            index = destination.get_index() if destination is not None else None
            if index is not None:
                title = " ".join(bookmark.get_title().split()).lower()
                levels.setdefault((index + 1, title), bookmark.level + 1)
    except pypdfium2.PdfiumError:  # a broken one is as good as none
        return levels
    return levels


def load_page(document: pypdfium2.PdfDocument, number: int) -> pypdfium2.PdfPage | None:
    """The page, from 1; ``None`` where that part of the file is damaged."""
    try:
        return document[number - 1]
    except pypdfium2.PdfiumError:
        return None


def has_images(page: pypdfium2.PdfPage) -> bool:
    return any(True for _ in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3))


def page_lines(page: pypdfium2.PdfPage, number: int) -> PageLines:
    """What is written on the page, piece by piece as drawn: not yet in reading order."""
    left, bottom, right, top = page.get_bbox()
    turned = page.get_rotation()
    text_page = page.get_textpage()
    try:
        runs = list(_Runs(text_page))
    finally:
        text_page.close()
    width, height = right - left, top - bottom
    place = _place(turned, left, bottom, right, top)
    lines = [line for run in runs if (line := run.line(place, turned)) is not None]
    if turned in {90, 270}:
        width, height = height, width
    return PageLines(number=number, width=width, height=height, lines=lines)


def _place(turned: int, left: float, bottom: float, right: float, top: float) -> Any:
    """From the page's own corners, y upwards, to those on the screen, y downwards."""
    if turned == 90:
        return lambda x1, y1, x2, y2: (y1 - bottom, x1 - left, y2 - bottom, x2 - left)
    if turned == 180:
        return lambda x1, y1, x2, y2: (right - x2, y1 - bottom, right - x1, y2 - bottom)
    if turned == 270:
        return lambda x1, y1, x2, y2: (top - y2, right - x2, top - y1, right - x1)
    return lambda x1, y1, x2, y2: (x1 - left, top - y2, x2 - left, top - y1)


class _Run:
    """Characters that follow each other closely on one line."""

    __slots__ = ("angle", "bold", "bottom", "characters", "left", "right", "size", "top")

    def __init__(self, angle: float, size: float, *, bold: bool) -> None:
        self.angle = angle
        self.size = size
        self.bold = bold
        self.characters: list[int] = []
        self.left = self.bottom = math.inf
        self.right = self.top = -math.inf

    def add(self, code: int, left: float, bottom: float, right: float, top: float) -> None:
        self.characters.append(code)
        self.left = min(self.left, left)
        self.bottom = min(self.bottom, bottom)
        self.right = max(self.right, right)
        self.top = max(self.top, top)

    def is_bullet(self) -> bool:
        return len(self.characters) == 1 and not chr(self.characters[0]).isalnum()

    def line(self, place: Any, turned: int) -> Line | None:
        codes = self.characters
        hyphenated = bool(codes) and codes[-1] in _LINE_END_HYPHENS
        text = clean(
            "".join("-" if code in _LINE_END_HYPHENS else chr(code) for code in codes)
        ).strip()
        if not text or not math.isfinite(self.left):
            return None
        left, top, right, bottom = place(self.left, self.bottom, self.right, self.top)
        straight = abs(math.remainder(self.angle - math.radians(turned), math.tau)) < 0.1
        return Line(
            left=left,
            top=top,
            right=right,
            bottom=bottom,
            text=text,
            size=round(self.size, 1),
            bold=self.bold,
            hyphenated=hyphenated,
            straight=straight,
        )


class _Runs:
    """Goes over a page's characters, and breaks where the pen jumps."""

    def __init__(self, page: pypdfium2.PdfTextPage) -> None:
        self._page = page
        self._box = [ctypes.c_double() for _ in range(4)]
        self._origin = [ctypes.c_double() for _ in range(2)]
        self._matrix = pdfium.FS_MATRIX()
        self._name = ctypes.create_string_buffer(256)
        self._flags = ctypes.c_int()

    def __iter__(self) -> Iterator[_Run]:  # noqa: C901  (the inner loop, for speed)
        page, box, origin = self._page, self._box, self._origin
        run: _Run | None = None
        along = across = 0.0
        spaces = 0
        for index in range(min(page.count_chars(), _MOST_CHARACTERS)):
            code = pdfium.FPDFText_GetUnicode(page, index)
            if code in {10, 13}:
                if run is not None:
                    yield run
                run = None
                continue
            if code in {0, 0xFFFF}:
                continue
            if code in {9, 32, 0xA0}:
                spaces += 1
                continue
            pdfium.FPDFText_GetCharBox(page, index, box[0], box[1], box[2], box[3])
            pdfium.FPDFText_GetCharOrigin(page, index, origin[0], origin[1])
            left, right, bottom, top = (value.value for value in box)
            x, y = origin[0].value, origin[1].value
            if run is not None:
                gap, shift = self._moved(run, along, across, left, x, y, bottom, top)
                if (
                    shift > 0.35 * run.size
                    or not -1.5 * run.size < gap < 1.2 * run.size
                    or (spaces and run.is_bullet())  # set in another size
                ):
                    yield run
                    run = None
            if run is None:
                run = self._new_run(index)
            elif spaces:
                run.characters.append(32)
            spaces = 0
            # Heights from the line that the letters stand on: their own differ from line to line.
            if abs(math.sin(run.angle)) < 0.1:
                up = 1 if math.cos(run.angle) > 0 else -1
                bottom, top = sorted((y - 0.22 * up * run.size, y + 0.78 * up * run.size))
            elif abs(math.cos(run.angle)) < 0.1:
                up = -1 if math.sin(run.angle) > 0 else 1
                left, right = sorted((x - 0.22 * up * run.size, x + 0.78 * up * run.size))
            run.add(code, left, bottom, right, top)
            across = y if abs(math.sin(run.angle)) < 0.5 else x
            along = right if abs(math.sin(run.angle)) < 0.5 else top
        if run is not None:
            yield run

    @staticmethod
    def _moved(
        run: _Run,
        along: float,
        across: float,
        left: float,
        x: float,
        y: float,
        bottom: float,
        top: float,
    ) -> tuple[float, float]:
        """How far the next character is from the last one, in its line and beside it."""
        if abs(math.sin(run.angle)) < 0.5:
            return (left - along if math.cos(run.angle) > 0 else 0.0), abs(y - across)
        return (bottom - along if math.sin(run.angle) > 0 and top else 0.0), abs(x - across)

    def _new_run(self, index: int) -> _Run:
        page = self._page
        size = pdfium.FPDFText_GetFontSize(page, index)
        angle = 0.0
        if pdfium.FPDFText_GetMatrix(page, index, self._matrix):
            size *= math.hypot(self._matrix.c, self._matrix.d) or 1.0
            angle = math.atan2(self._matrix.b, self._matrix.a)
        length = pdfium.FPDFText_GetFontInfo(page, index, self._name, 256, self._flags)
        name = self._name.raw[: max(length - 1, 0)].decode("latin-1") if length <= 256 else ""
        bold = bool(_BOLD.search(name)) or bool(self._flags.value & _FORCE_BOLD)
        return _Run(angle, max(size, 1.0), bold=bold)
