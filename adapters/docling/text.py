"""Bytes to text, where the file is text already."""

from __future__ import annotations

import codecs
import unicodedata

from gateway.ports import ConversionFailed

__all__ = ["clean", "decode"]

_SAMPLE_BYTES = 64 * 1024
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = frozenset(range(32)) - {7, 8, 9, 10, 11, 12, 13, 27}
"""Control characters that text doesn't hold; bells, tabs, form feeds and colours of logs it may."""


def decode(data: bytes, extension: str = "") -> str:
    """The text in ``data``: UTF-8, UTF-16 or UTF-32, else the likeliest of the older encodings.

    Raises ``ConversionFailed`` where it is no text at all.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return clean(data.decode(encoding, "replace"))
            except UnicodeError as error:
                raise _binary(extension) from error
    if b"\0" in data[:_SAMPLE_BYTES]:
        return _text_of(_utf_16_without_mark(data, extension), extension)
    try:
        return _text_of(data.decode("utf-8"), extension)
    except UnicodeDecodeError as error:
        # One bad byte far inside, or a cut-off end, doesn't make another encoding likelier.
        good = error.start / len(data)
        if good > 0.99 and error.start > 1024:
            return _text_of(data.decode("utf-8", "replace"), extension)
    return _text_of(data.decode(_older_encoding(data), "replace"), extension)


def clean(text: str) -> str:
    """Without what neither databases nor tokenizers take: NUL and halves of surrogate pairs."""
    text = text.replace("\0", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text_of(text: str, extension: str) -> str:
    sample = text[:_SAMPLE_BYTES]
    strange = sum(1 for character in sample if ord(character) in _CONTROLS)
    if strange > len(sample) / 100:
        raise _binary(extension)
    return clean(text)


def _utf_16_without_mark(data: bytes, extension: str) -> str:
    """Windows writes it: every other byte of Western text is zero then."""
    sample = data[: _SAMPLE_BYTES // 2 * 2]
    half = len(sample) / 2
    for encoding, zeros in (
        ("utf-16-le", sample[1::2].count(0)),
        ("utf-16-be", sample[::2].count(0)),
    ):
        if half and zeros / half > 0.4:
            text = data.decode(encoding, "replace")
            known = sum(1 for one in text[:1000] if unicodedata.category(one) not in {"Cn", "Co"})
            if "\0" not in text[:_SAMPLE_BYTES] and known >= 0.98 * len(text[:1000]):
                return text
    raise _binary(extension)


def _older_encoding(data: bytes) -> str:
    """Latin-1 where the guess fails: it decodes anything."""
    try:
        from charset_normalizer import from_bytes  # only for the few files that need it
    except ImportError:
        return "cp1252"
    best = from_bytes(data[:_SAMPLE_BYTES], threshold=0.3).best()
    return best.encoding if best is not None else "latin-1"


def _binary(extension: str) -> ConversionFailed:
    named = f"Files of type .{extension} can't" if extension else "The file can't"
    return ConversionFailed(
        "unsupported_file", f"{named} be converted: it holds binary data, not text."
    )
