"""Forms (``multipart/form-data``) that are read while they arrive, and never whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from gateway.errors import (
    ClientDisconnected,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from gateway.http.filename import disposition_of

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope

__all__ = ["FileLimit", "FormReader", "Part"]

MAX_PARTS = 32
MAX_PART_HEADERS = 16
MAX_HEADER_BYTES = 8 * 1024
"""Of one header line. A file name of 255 characters may take 3 kB when it is percent-encoded."""
MAX_FIELD_BYTES = 64 * 1024
MAX_OVERHEAD_BYTES = 1024 * 1024
"""All that is not content: boundaries, headers, and what may stand before and behind the parts."""
MAX_BOUNDARY_CHARACTERS = 200

_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})


class FileLimit:
    """How large the form's one file may be, in words too: ``part`` is the field it comes in."""

    def __init__(self, part: str, most: int, name: str) -> None:
        self.part = part
        self.bytes = most
        self._name = name

    @property
    def body_bytes(self) -> int:
        """How large the whole form may be."""
        return self.bytes + MAX_OVERHEAD_BYTES

    def error(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The file is too large: at most {self.bytes} bytes are taken ({self._name}).",
            param=self.part,
        )


class Part:
    """One field or file of a form. Its content can be read once, until the next part is asked for.

    ``filename`` is as the caller sent it; ``None`` where the part is a plain field. ``media_type``
    has no parameters.
    """

    def __init__(self, reader: FormReader, segment: MultipartSegment) -> None:
        headers = dict(segment.headerlist)
        self._reader = reader
        self.name, self.filename = disposition_of(headers.get("Content-Disposition", ""))
        self.media_type: str | None = segment.content_type or None
        encoding = headers.get("Content-Transfer-Encoding", "").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise InvalidRequest(
                "A content-transfer-encoding of parts is not supported. Send the content as it is.",
                param=self.name or None,
                code="invalid_form",
            )

    async def blocks(self) -> AsyncIterator[bytes]:
        """The content of the form's file, as it comes."""
        limit = self._reader.limit
        size = 0
        while (block := await self._reader.next_block()) is not None:
            size += len(block)
            if size > limit.bytes:
                raise limit.error()
            yield block

    async def text(self) -> str:
        """The content of a plain field, up to ``MAX_FIELD_BYTES``."""
        content = b""
        while (block := await self._reader.next_block()) is not None:
            content += block
            if len(content) > MAX_FIELD_BYTES:
                raise PayloadTooLarge(
                    f"'{self.name}' is longer than {MAX_FIELD_BYTES} bytes.", param=self.name
                )
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"Invalid '{self.name}': it is not UTF-8.", param=self.name, code="invalid_value"
            ) from None


class FormReader:
    """The parts of a request's form, in the order in which they come.

    ``while (part := await reader.next_part()) is not None: …`` ends when the body is over; what is
    left of a part is skipped when the next one is asked for. Raises ``UnsupportedMediaType`` at
    once where the body is no form, ``InvalidRequest`` where the form is broken, ``PayloadTooLarge``
    (before reading where the length is declared) and ``ClientDisconnected``.
    """

    def __init__(self, scope: Scope, receive: Receive, limit: FileLimit) -> None:
        self._receive = receive
        self.limit = limit
        boundary = _boundary(scope)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit.body_bytes:
                raise limit.error()
        try:
            self._parser = PushMultipartParser(
                boundary,
                max_header_size=MAX_HEADER_BYTES,
                max_header_count=MAX_PART_HEADERS,
                max_segment_count=MAX_PARTS,
                header_charset="latin-1",  # any byte passes; `disposition_of` finds the real one
            )
        except MultipartError as error:
            raise _broken(error) from None
        self._events: Iterator[MultipartSegment | bytes | None] = iter(())
        self._received = 0
        self._content = 0
        self._body_over = False
        self._inside = False

    async def next_part(self) -> Part | None:
        while self._inside:
            await self.next_block()
        segment = await self._next_event()
        if segment is None:
            return None
        assert isinstance(segment, MultipartSegment)  # nothing else is between parts
        self._inside = True
        return Part(self, segment)

    async def next_block(self) -> bytes | None:
        """More of the current part's content; ``None`` at its end."""
        if not self._inside:
            return None
        block = await self._next_event()
        if block:
            assert isinstance(block, bytes)
            self._content += len(block)
            return block
        self._inside = False
        return None

    async def _next_event(self) -> MultipartSegment | bytes | None:
        """A part begins, some of its content, or ``b""`` for its end; ``None`` when all is over."""
        while True:
            try:
                for event in self._events:
                    return b"" if event is None else event
                block = await self._read()
                if block is None:
                    self._parser.close()  # complains where the form has no end
                    return None
                self._events = self._parser.parse(block)
            except MultipartError as error:
                raise _broken(error) from None

    async def _read(self) -> bytes | None:
        """The next block of the body, never empty; ``None`` at its end."""
        if self._received - self._content > MAX_OVERHEAD_BYTES:
            raise InvalidRequest(
                "The form has too much beside the content of its parts.", code="invalid_form"
            )
        while not self._body_over:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("The client left while sending its request.")
            block: bytes = message.get("body", b"")
            self._body_over = not message.get("more_body", False)
            self._received += len(block)
            if self._received > self.limit.body_bytes:
                raise self.limit.error()
            if block:
                return block
        return None


def _boundary(scope: Scope) -> str:
    """What separates the parts."""
    headers = dict(scope["headers"])
    header: bytes = headers.get(b"content-type", b"")
    media_type, options = parse_options_header(header.decode("latin-1"))
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType(
            f"Unsupported content type {media_type[:100]!r}. Send 'multipart/form-data'.",
            param="content-type",
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType(
            "Compressed request bodies are not supported. Send the form without a "
            "content-encoding header.",
            param="content-encoding",
        )
    boundary: str = options.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS:
        raise InvalidRequest(
            "The content type has no usable boundary.", param="content-type", code="invalid_form"
        )
    return boundary


def _broken(error: MultipartError) -> InvalidRequest | PayloadTooLarge:
    if isinstance(error, ParserLimitReached):
        return PayloadTooLarge(f"The form is too large: {error.args[0]}.")
    return InvalidRequest(f"The form is not valid: {error.args[0]}.", code="invalid_form")
