"""Reads pictures of text. Needs the extra ``ocr``, whose package brings its models."""

from __future__ import annotations

import importlib.util
from statistics import median
from typing import Any

from adapters.docling.layout import Line, PageLines
from gateway.ports import ConversionFailed

__all__ = ["Reader", "available"]

_LEAST_CONFIDENCE = 0.5
_POINTS_PER_INCH = 72


def available() -> bool:
    return importlib.util.find_spec("rapidocr") is not None


class Reader:
    """RapidOCR, loaded at the first picture. Raises ``ConversionFailed`` where it isn't there."""

    def __init__(self) -> None:
        self._engine: Any = None

    def read(self, picture: Any, number: int, *, dots_per_inch: float = 144.0) -> PageLines:
        """The lines in a PIL image, as those of page ``number``, in points."""
        import numpy as np

        if self._engine is None:
            self._engine = _load()
        pixels = np.asarray(picture.convert("RGB"))[:, :, ::-1]
        found = self._engine(pixels)
        scale = _POINTS_PER_INCH / dots_per_inch
        lines = []
        boxes = found.boxes if found.boxes is not None else ()
        for box, text, score in zip(boxes, found.txts or (), found.scores or (), strict=True):
            if score < _LEAST_CONFIDENCE or not text.strip():
                continue
            left, right = float(box[:, 0].min()) * scale, float(box[:, 0].max()) * scale
            top, bottom = float(box[:, 1].min()) * scale, float(box[:, 1].max()) * scale
            lines.append(Line(left, top, right, bottom, text.strip(), (bottom - top) * 0.8))
        _even_out(lines)
        height, width = pixels.shape[:2]
        return PageLines(number=number, width=width * scale, height=height * scale, lines=lines)


def _even_out(lines: list[Line]) -> None:
    """Boxes of lines in one type differ by a few points, and are no headings for that."""
    if not lines:
        return
    typical = median(line.size for line in lines)
    for line in lines:
        if 0.7 * typical <= line.size <= 1.35 * typical:
            line.size = typical


def _load() -> Any:
    if not available():
        raise ConversionFailed(
            "unsupported_file",
            "Reading text in pictures needs a package that is not installed here: install "
            "understudy-gateway[ocr].",
        )
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "critical"})
