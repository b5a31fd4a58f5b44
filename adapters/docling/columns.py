"""The lines of a page in the order in which they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

__all__ = ["GLYPHS", "Line", "PageLines", "beside", "columns", "same_row"]

GLYPHS = "•·◦▪‣∙●○■□–—✓➢❖\uf0b7\uf0a7"  # noqa: RUF001  (dashes that begin list items)

_LONE_BULLET = re.compile(rf"^(?:[{GLYPHS}*-]|\(?(?:\d{{1,3}}|[a-zA-Z]|[ivx]{{1,4}})[.)])$")

_DEEPEST_COLUMNS = 3


class Line(Struct):
    """Text at one height, in points from the page's top left corner."""

    left: float
    top: float
    right: float
    bottom: float
    text: str
    size: float
    bold: bool = False
    hyphenated: bool = False
    """Whether its last word goes on in the next line."""
    straight: bool = True
    """False for what is written up or down the page."""


class PageLines(Struct, kw_only=True):
    """``number`` is from 1."""

    number: int
    width: float
    height: float
    lines: list[Line]


def same_row(lines: list[Line]) -> list[Line]:
    """Joins what is close to each other at the same height: words, superscripts, bullets."""
    lines = sorted(_with_bullets(lines), key=lambda line: (round(line.bottom), line.left))
    joined: list[Line] = []
    for line in lines:
        for before in reversed(joined[-40:]):
            size = max(before.size, line.size)
            if not beside(before, line):
                continue
            gap = line.left - before.right
            if -0.5 * size <= gap < 1.0 * size:
                space = " " if gap > 0.12 * size else ""
                before.text += space + line.text
                before.right = max(before.right, line.right)
                before.top = min(before.top, line.top)
                before.bottom = max(before.bottom, line.bottom)
                before.hyphenated = line.hyphenated
                if line.size > before.size:
                    before.size, before.bold = line.size, line.bold
                break
        else:
            joined.append(line)
    return joined


def _with_bullets(lines: list[Line]) -> list[Line]:
    """Bullets and numbers that stand alone go to the line at their right."""
    lone = [line for line in lines if _LONE_BULLET.match(line.text)]
    others = [line for line in lines if not _LONE_BULLET.match(line.text)]
    left = []
    for bullet in lone:
        size = max(bullet.size, 6.0)
        near = [
            line
            for line in others
            if beside(bullet, line) and -0.2 * size <= line.left - bullet.right < 4 * size
        ]
        if not near:
            left.append(bullet)
            continue
        line = max(near, key=lambda line: _overlap(bullet, line))
        line.text = f"{bullet.text} {line.text}"
        line.left = bullet.left
    return others + left


def _overlap(one: Line, other: Line) -> float:
    return min(one.bottom, other.bottom) - max(one.top, other.top)


def beside(one: Line, other: Line) -> bool:
    return _overlap(one, other) > 0.5 * min(one.bottom - one.top, other.bottom - other.top)


def columns(lines: list[Line], depth: int) -> list[list[Line]]:
    """Groups of lines to be read one group after the other, each from top to bottom."""
    ordered = sorted(lines, key=lambda line: (line.top, line.left))
    gutter = _gutter(ordered) if depth < _DEEPEST_COLUMNS else None
    if gutter is None:
        return [ordered] if ordered else []
    groups: list[list[Line]] = []
    left: list[Line] = []
    right: list[Line] = []
    across: list[Line] = []

    def finish_columns() -> None:
        for side in (left, right):
            groups.extend(columns(side[:], depth + 1))
            side.clear()

    def finish_across() -> None:
        if across:
            groups.append(across[:])
            across.clear()

    for line in ordered:
        if line.left < gutter < line.right:
            finish_columns()
            across.append(line)
        else:
            finish_across()
            (left if line.right <= gutter else right).append(line)
    finish_columns()
    finish_across()
    return groups


def _gutter(lines: list[Line]) -> float | None:
    """The middle of the gap between two columns of running text, if there is one."""
    if len(lines) < 8:
        return None
    start = min(line.left for line in lines)
    end = max(line.right for line in lines)
    width = end - start
    best: tuple[int, float] | None = None
    steps = 40
    for step in range(8, steps - 7):
        place = start + width * step / steps
        crossing = sum(1 for line in lines if line.left < place < line.right)
        if best is None or crossing < best[0]:
            best = (crossing, place)
    if best is None or best[0] > 0.3 * len(lines):
        return None
    place = best[1]
    left = [line for line in lines if line.right <= place]
    right = [line for line in lines if line.left >= place]
    if min(len(left), len(right)) < 4:
        return None
    place = (_most(line.right for line in left) + _least(line.left for line in right)) / 2
    for side, room in ((left, place - start), (right, end - place)):
        # A column is filled with lines of words. Else it is a table, to be read row by row.
        wide = sum(
            1
            for line in side
            if line.right - line.left > 0.55 * room and len(line.text.split()) > 2
        )
        if wide < 0.4 * len(side):
            return None
    return place


def _most(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[int(0.95 * (len(ordered) - 1))]


def _least(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[int(0.05 * (len(ordered) - 1))]
