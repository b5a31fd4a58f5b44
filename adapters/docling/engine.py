"""Turns one file into a document, inside a converter process. Nothing here is asynchronous."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from adapters.docling import formats, text
from adapters.docling.formats import INSTALL_DOCLING, Kind
from adapters.docling.ocr import Reader
from gateway.ports import ConversionFailed

__all__ = ["Engine", "EngineOptions"]

_ENABLE_OCR = (
    "set documents.ocr to true and install understudy-gateway[ocr], or set "
    "documents.converter: docling-serve"
)
_ZIPPED = {"docx", "pptx", "xlsx", "odt", "ods", "odp", "epub"}
_MOST_PIXELS = 200_000_000


class EngineOptions(Struct, frozen=True, kw_only=True):
    """What of the settings a converter process needs; no secrets among it."""

    max_pages: int
    max_file_bytes: int
    max_unzipped_bytes: int
    max_chunks: int
    models_path: str | None = None
    ocr: bool = False
    memory_bytes: int


class Engine:
    """Converts files one after another; what has been loaded for one serves the next."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._reader = Reader()
        self._docling: Any = None

    def convert(self, source: Path, filename: str) -> bytes:
        """The JSON of a document. Raises ``ConversionFailed``."""
        kind = formats.recognise(source, filename)
        if kind.name == "text" or (kind.readable and not _installed("docling")):
            return self._plain(source, kind)
        if source.stat().st_size > self._options.max_file_bytes:
            raise ConversionFailed(
                "invalid_file",
                f"The file has {source.stat().st_size} bytes, more than ingestion.max_file_bytes "
                f"({self._options.max_file_bytes}) allows for documents of its type.",
            )
        if kind.name in _ZIPPED:
            formats.check_archive(source, self._options.max_unzipped_bytes)
        if not _installed("docling_core"):
            named = f"Files of type .{kind.extension}" if kind.extension else "Such files"
            raise ConversionFailed(
                "unsupported_file", f"{named} can't be converted here: {INSTALL_DOCLING}."
            )
        if self._options.models_path is not None and kind.name in {"pdf", "image"}:
            if kind.name == "pdf":
                self._check_pdf(source)
            return self._with_docling(source, filename, kind)
        if kind.name == "pdf":
            return self._pdf(source, filename)
        if kind.name == "image":
            return self._image(source, filename)
        return self._with_docling(source, filename, kind)

    def _plain(self, source: Path, kind: Kind) -> bytes:
        decoded = text.decode(source.read_bytes(), kind.extension)
        return msgspec.json.encode({"schema_name": "PlainText", "text": decoded})

    def _check_pdf(self, source: Path) -> None:
        from adapters.docling.pdf import open_pdf

        with open_pdf(source, self._options.max_pages):
            pass

    def _pdf(self, source: Path, filename: str) -> bytes:
        """With the light layout: page after page, so that memory stays small."""
        from adapters.docling import layout, pdf
        from adapters.docling.document import build

        pages = []
        pictures = unreadable = 0
        with pdf.open_pdf(source, self._options.max_pages) as document:
            outline = pdf.outline(document)
            for number in range(1, len(document) + 1):
                page = pdf.load_page(document, number)
                if page is None:
                    unreadable += 1
                    continue
                try:
                    lines = pdf.page_lines(page, number)
                    if not lines.lines and pdf.has_images(page):
                        pictures += 1
                        if self._options.ocr:
                            picture = page.render(scale=2).to_pil()
                            lines = self._reader.read(picture, number, dots_per_inch=144)
                finally:
                    page.close()
                pages.append(lines)
        if not pages:
            raise ConversionFailed(
                "invalid_file", "The PDF is damaged or was cut off: none of its pages can be read."
            )
        if pictures and not self._options.ocr and not any(page.lines for page in pages):
            raise ConversionFailed(
                "unsupported_file",
                f"The PDF holds pictures of its pages (a scan) and no text. To read it, "
                f"{_ENABLE_OCR}.",
            )
        blocks = layout.arrange(pages, outline)
        return _json(build(filename, pages, blocks))

    def _image(self, source: Path, filename: str) -> bytes:
        from PIL import Image, ImageSequence, UnidentifiedImageError

        from adapters.docling import layout
        from adapters.docling.document import build

        if not self._options.ocr:
            raise ConversionFailed(
                "unsupported_file", f"The file is a picture. To read text in it, {_ENABLE_OCR}."
            )
        Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
        pages = []
        try:
            with Image.open(source) as picture:
                for number, frame in enumerate(ImageSequence.Iterator(picture), 1):
                    if number > self._options.max_pages:
                        break
                    pages.append(self._reader.read(frame, number))
                    if picture.format == "GIF":
                        break
        except Image.DecompressionBombError as error:
            raise ConversionFailed(
                "invalid_file", f"The picture has more than {_MOST_PIXELS} pixels."
            ) from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise ConversionFailed(
                "invalid_file", "The picture is damaged or was cut off: it can't be read."
            ) from error
        return _json(build(filename, pages, layout.arrange(pages)))

    def _with_docling(self, source: Path, filename: str, kind: Kind) -> bytes:
        if not _installed("docling"):
            raise ConversionFailed(
                "unsupported_file",
                f"Files of type .{kind.extension} can't be converted here: {INSTALL_DOCLING}.",
            )
        if self._docling is None:
            from adapters.docling.converter import make_converter

            self._docling = make_converter(self._options)
        from adapters.docling.converter import run

        document = run(self._docling, source, filename, kind, self._options)
        if document is None:
            return self._plain(source, kind)
        return _json(document)

    def tidy(self) -> None:
        """After each file: docling's documents hold reference cycles."""
        gc.collect()


def _json(document: Any) -> bytes:
    dump: Callable[..., str] = document.model_dump_json
    return dump(by_alias=True, exclude_none=True).encode("utf-8", "replace")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
