"""File names, in any script: read from a form, made harmless, and put into a header.

A caller's name is only ever text. Nothing is stored under it.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

__all__ = ["UNNAMED", "attachment", "disposition_of", "harmless"]

UNNAMED = "uploaded_file"
MAX_CHARACTERS = 255
_MAX_SUFFIX = 32

_OPTION = re.compile(r';\s*([!#$%&\'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.ASCII)
_BEHIND_BACKSLASH = re.compile(r'\\(["\\])')
_PERCENT = {"%22": '"', "%0D": "\r", "%0A": "\n"}
"""All that browsers encode (WHATWG); any other ``%41`` is part of the name."""
_ENCODED = re.compile("%22|%0D|%0A", re.IGNORECASE)

_DROPPED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of characters, and what some take for the end of a line."""
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of text by force, so that ``exe.txt`` is shown for ``txt.exe``. Names in
scripts that run from right to left need none of it."""

_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
"""What may stand unquoted in ``filename*`` beside letters and digits (RFC 5987)."""
_UNSAFE_IN_QUOTES = re.compile(r'[^ -~]|["\\%]')


def disposition_of(header: str) -> tuple[str, str | None]:
    """``name`` and ``filename`` of a part's ``content-disposition``, given as latin-1.

    ``filename*`` comes first where it can be read; else ``filename`` as browsers and SDKs send it:
    raw UTF-8 (or latin-1), with quotes as ``%22`` or behind a backslash.
    """
    options: dict[str, str] = {}
    for found in _OPTION.finditer(header):
        options.setdefault(found[1].lower(), found[2])
    extended = _extended(options.get("filename*", ""))
    plain = options.get("filename")
    filename = extended or (None if plain is None else _plain(plain))
    if filename is None and "filename*" in options:
        filename = ""
    return _plain(options.get("name", "")), filename


def harmless(name: str | None) -> str:
    """The name as it is kept: without folders and control characters, 1 to 255 characters."""
    last = re.split(r"[/\\]", name or "")[-1]
    kept = "".join(
        character
        for character in last
        if unicodedata.category(character) not in _DROPPED and character not in _DIRECTIONS
    ).strip()
    if kept.strip(". ") == "":
        return UNNAMED
    if len(kept) <= MAX_CHARACTERS:
        return kept
    stem, dot, suffix = kept.rpartition(".")
    if not stem or len(suffix) > _MAX_SUFFIX:
        return kept[:MAX_CHARACTERS]
    return stem[: MAX_CHARACTERS - len(suffix) - 1] + dot + suffix


def attachment(name: str) -> str:
    """A ``content-disposition`` with this name, in ASCII: for any client, and as it really is."""
    fallback = _UNSAFE_IN_QUOTES.sub("_", name)
    if fallback == name:
        return f'attachment; filename="{name}"'
    encoded = quote(name, safe=_ATTRIBUTE_CHARACTERS, encoding="utf-8", errors="replace")
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"


def _extended(value: str) -> str | None:
    """RFC 5987: ``UTF-8'en'na%C3%AFve.txt``."""
    charset, _, rest = value.strip().strip('"').partition("'")
    _, quoted, encoded = rest.partition("'")
    if not quoted or charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    try:
        return unquote_to_bytes(encoded.encode("latin-1")).decode(charset)
    except UnicodeDecodeError:
        return None


def _plain(value: str) -> str:
    raw = value.strip()
    if len(raw) >= 2 and raw[0] == raw[-1] == '"':
        raw = _BEHIND_BACKSLASH.sub(r"\1", raw[1:-1])
    raw = _ENCODED.sub(lambda found: _PERCENT[found[0].upper()], raw)
    try:
        return raw.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return raw
