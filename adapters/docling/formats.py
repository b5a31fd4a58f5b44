"""What kind of document a file is, told by its first bytes and its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.ports import ConversionFailed

__all__ = ["INSTALL_DOCLING", "Kind", "check_archive", "recognise"]

INSTALL_DOCLING: Final = (
    "install understudy-gateway[docling] or set documents.converter: docling-serve"
)

_HEAD_BYTES = 4096
_MAX_ARCHIVE_ENTRIES = 100_000

_TEXT_TOO: Final = {
    "md": "md",
    "markdown": "md",
    "adoc": "asciidoc",
    "asciidoc": "asciidoc",
    "csv": "csv",
    "tex": "latex",
    "latex": "latex",
}
"""Formats that have a structure and can be read as plain text where docling isn't there."""

_MARKUP: Final = {"html": "html", "htm": "html", "xhtml": "html", "eml": "email"}

_ZIPPED: Final = {
    "docx": "docx",
    "dotx": "docx",
    "docm": "docx",
    "pptx": "pptx",
    "ppsx": "pptx",
    "pptm": "pptx",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "odt": "odt",
    "ods": "ods",
    "odp": "odp",
    "epub": "epub",
}
_MEMBERS: Final = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_MIMETYPES: Final = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.presentation": "odp",
}

_IMAGES: Final = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
)
_BITMAP_HEADERS: Final = {12, 40, 52, 56, 64, 108, 124}
_SCRIPTS: Final = {"py", "js", "ts", "java", "go", "rb", "php", "c", "cpp", "cs", "sh", "txt"}
"""They may hold ``%PDF-`` as a string near their top."""
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Kind(Struct, frozen=True):
    """``name`` is ``text``, ``pdf``, ``image``, or docling's name of a format (``docx``, ``md``).

    ``extension`` is that of the name, in lower case and without the dot. ``readable`` says that
    the file is text in any case, so that it can be read without docling too.
    """

    name: str
    extension: str
    readable: bool = False


def recognise(source: Path, filename: str) -> Kind:
    """The kind of ``source``, which the caller named ``filename``.

    What is not known is ``text``: whether it really is shows when it is decoded. Raises
    ``ConversionFailed`` for an empty file and for what is known and can't be converted.
    """
    with source.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise ConversionFailed("invalid_file", "The file is empty.")
    extension = _extension(filename)
    name = _by_first_bytes(source, head, extension)
    if name is not None:
        return Kind(name, extension)
    if extension == "pdf" or extension in _ZIPPED:
        raise ConversionFailed(
            "invalid_file", f"The file is named .{extension} and is not one: it may be damaged."
        )
    if (name := _MARKUP.get(extension)) is not None:
        return Kind(name, extension)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if not extension and start.startswith((b"<!doctype html", b"<html")):
        return Kind("html", extension)
    return Kind(_TEXT_TOO.get(extension, "text"), extension, readable=True)


def _by_first_bytes(source: Path, head: bytes, extension: str) -> str | None:
    if b"%PDF-" in head[:1024] and extension not in _SCRIPTS:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(source, extension)
    if head.startswith(_OLE):
        raise _ole(source, extension)
    return "image" if _is_image(head) else None


def check_archive(source: Path, max_unzipped_bytes: int) -> None:
    """Look at a zip's table of contents before anything is unpacked.

    Raises ``ConversionFailed`` where it would unpack to more than ``max_unzipped_bytes``, is
    damaged, or asks for a password.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ConversionFailed(
            "invalid_file", "The file is damaged or was cut off: it can't be unpacked."
        ) from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > max_unzipped_bytes or len(members) > _MAX_ARCHIVE_ENTRIES:
        raise ConversionFailed(
            "invalid_file",
            f"The file unpacks to {unpacked} bytes in {len(members)} parts, more than "
            f"ingestion.max_unzipped_bytes ({max_unzipped_bytes}) or {_MAX_ARCHIVE_ENTRIES} "
            "parts allow.",
        )
    if any(member.flag_bits & 1 for member in members):
        raise ConversionFailed(
            "invalid_file", "The file is protected with a password. Remove it and upload again."
        )


def _extension(filename: str) -> str:
    return Path(filename.replace("\\", "/")).suffix.lower().removeprefix(".")


def _is_image(head: bytes) -> bool:
    if head.startswith(_IMAGES):
        return True
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return True
    return (
        head.startswith(b"BM")
        and len(head) > 18
        and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS
    )


def _zipped(source: Path, extension: str) -> str:
    if extension in _ZIPPED:
        return _ZIPPED[extension]
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()[:_MAX_ARCHIVE_ENTRIES]
            if names and names[0] == "mimetype":
                with archive.open("mimetype") as member:
                    mimetype = member.read(128).strip()
                if (name := _MIMETYPES.get(mimetype)) is not None:
                    return name
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        names = []
    for prefix, name in _MEMBERS.items():
        if any(member.startswith(prefix) for member in names):
            return name
    raise ConversionFailed(
        "unsupported_file", "Archives can't be converted. Unpack it and upload the files in it."
    )


def _ole(source: Path, extension: str) -> ConversionFailed:
    """Office files of before 2007, and today's when they are encrypted, are in this container."""
    with source.open("rb") as file:
        encrypted = "EncryptedPackage".encode("utf-16-le") in file.read(1024 * 1024)
    if encrypted:
        return ConversionFailed(
            "invalid_file", "The file is protected with a password. Remove it and upload again."
        )
    newer = {"doc": "docx", "ppt": "pptx", "xls": "xlsx"}.get(extension, "docx, pptx or xlsx")
    return ConversionFailed(
        "unsupported_file",
        f"Office files in the format of before 2007 can't be converted. Save it as {newer}.",
    )
