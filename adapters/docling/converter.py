"""Docling itself: for office and web documents, and for PDFs and images where its models are."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.docling.formats import Kind
from gateway.ports import ConversionFailed

if TYPE_CHECKING:
    from adapters.docling.engine import EngineOptions

__all__ = ["make_converter", "pdf_options", "run"]

_NAMES = {
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "xlsx",
    "html": "html",
    "md": "md",
    "asciidoc": "adoc",
    "csv": "csv",
    "latex": "tex",
    "odt": "odt",
    "ods": "ods",
    "odp": "odp",
    "epub": "epub",
    "email": "eml",
    "pdf": "pdf",
}
"""Docling's formats, and the ending that each goes by whatever the caller's file is called."""


def pdf_options(options: EngineOptions) -> Any:
    """How docling reads PDFs and images with its models.

    Raises ``ConversionFailed`` where the folder of models or a package is missing; that is a fault
    of the installation, so ``server_error``.
    """
    folder = Path(options.models_path or "")
    if not folder.is_dir():
        raise ConversionFailed(
            "server_error",
            "documents.models_path is not a folder. Fill one with `docling-tools models download` "
            "or leave the setting out.",
        )
    if importlib.util.find_spec("torch") is None:
        raise ConversionFailed(
            "server_error",
            "documents.models_path needs docling with its models' packages: install "
            "understudy-gateway[docling-full].",
        )
    from docling.datamodel.pipeline_options import PdfPipelineOptions

    return PdfPipelineOptions(
        artifacts_path=folder,
        do_ocr=options.ocr,
        do_table_structure=True,
        enable_remote_services=False,
        allow_external_plugins=False,
    )


def make_converter(options: EngineOptions) -> Any:
    """Docling's converter; nothing is loaded that the first file doesn't need."""
    from docling.datamodel.base_models import InputFormat
    from docling.document_converter import DocumentConverter, ImageFormatOption, PdfFormatOption

    allowed = [InputFormat(name) for name in _NAMES if name != "pdf"]
    if options.models_path is None:
        return DocumentConverter(allowed_formats=allowed)
    pipeline = pdf_options(options)
    return DocumentConverter(
        allowed_formats=[*allowed, InputFormat.PDF, InputFormat.IMAGE],
        format_options={
            InputFormat.PDF: PdfFormatOption(pipeline_options=pipeline),
            InputFormat.IMAGE: ImageFormatOption(pipeline_options=pipeline),
        },
    )


def run(
    converter: Any, source: Path, filename: str, kind: Kind, options: EngineOptions
) -> Any | None:
    """The DoclingDocument; ``None`` where plain text of the file is better.

    Raises ``ConversionFailed``, never with docling's own words: they may quote the document.
    """
    from docling.datamodel.base_models import ConversionStatus, DocumentStream
    from docling.exceptions import ConversionError

    stem = Path(filename.replace("\\", "/")).stem or "document"
    ending = _NAMES.get(kind.name, kind.extension)
    try:
        with source.open("rb") as file:
            stream = DocumentStream(name=f"{stem}.{ending}", stream=BytesIO(file.read()))
            result = converter.convert(
                stream,
                raises_on_error=False,
                max_num_pages=options.max_pages,
                max_file_size=options.max_file_bytes,
            )
    except (ConversionError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        if kind.readable:
            return None
        raise _damaged(kind) from error
    if result.status not in {ConversionStatus.SUCCESS, ConversionStatus.PARTIAL_SUCCESS}:
        if kind.readable:
            return None
        raise _failed(kind, [getattr(one, "category", None) for one in result.errors])
    document = result.document
    if kind.readable and not (document.texts or document.tables):
        return None
    return document


def _failed(kind: Kind, categories: list[Any]) -> ConversionFailed:
    names = {getattr(category, "value", category) for category in categories}
    if "policy" in names:
        return ConversionFailed(
            "invalid_file",
            "The file has more pages or parts, or unpacks to more, than can be converted.",
        )
    return _damaged(kind)


def _damaged(kind: Kind) -> ConversionFailed:
    return ConversionFailed(
        "invalid_file",
        f"The file is damaged or was cut off: it can't be read as {kind.name}.",
    )
