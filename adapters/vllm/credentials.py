"""The bearer token for a model server, from a value or from a file that may change."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from gateway.settings import BackendSettings, is_header_value

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a token file is looked at, at most."""


class Credentials:
    """Gives the ``authorization`` header line of a server, or nothing.

    A token in a file (a mounted Secret, a projected service account token) is read again when the
    file's identity, size or time of change differs. When the file can't be read, the last token
    stays in use: a rotation that is half done must not stop traffic.
    """

    def __init__(self, backend: BackendSettings) -> None:
        self._file = Path(backend.api_key_file) if backend.api_key_file else None
        self._line = _line(backend.api_key) if backend.api_key else b""
        self.configured = bool(backend.api_key or backend.api_key_file)
        self._seen: tuple[int, int, int] | None = None
        self._look_again = 0.0

    def header_line(self) -> bytes:
        """The whole line with its end, or empty."""
        if self._file is not None:
            now = time.monotonic()
            if now >= self._look_again:
                self._look_again = now + LOOK_SECONDS
                self._read(self._file)
        return self._line

    def _read(self, file: Path) -> None:
        try:
            status = file.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            text = file.read_text(encoding="utf-8").strip()
        except OSError:
            return  # keep the last token
        except UnicodeDecodeError:
            text = "\0"
        self._seen = seen
        try:
            self._line = _line(text)
        except ValueError as error:
            logger.warning("%s: %s; the last token stays in use", file, error)


def _line(token: str) -> bytes:
    if not token:
        raise ValueError("the bearer token is empty")
    if not is_header_value(token):
        raise ValueError("a bearer token holds a character that no HTTP header can carry")
    return b"authorization: Bearer " + token.encode("ascii") + b"\r\n"
