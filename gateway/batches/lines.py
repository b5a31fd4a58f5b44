"""The lines of an input file, read a piece at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Raw, Struct

from gateway.batches.service import endpoint_of
from gateway.http.download import Content
from gateway.http.validation import NOT_JSON

__all__ = ["InputLine", "LineRefused", "LineRequest", "parse_line", "read_lines"]

_WINDOW_BYTES = 1024 * 1024
"""What is asked of the object store at once. No stream stays open, since lines may take hours."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_ID = 512
_FIELDS = (("custom_id", str), ("method", str), ("url", str), ("body", dict))
_WORDS: dict[type, str] = {str: "string", dict: "JSON dictionary object"}


class InputLine(Struct, frozen=True):
    """A line that isn't blank. ``content`` is ``None`` where it is longer than may be."""

    number: int
    """From 1, blank lines counted."""
    content: bytes | None


class LineRequest(Struct, frozen=True):
    """What a line asks for. The values of ``body`` are as they came."""

    custom_id: str
    model: str
    body: dict[str, Raw]


class LineRefused(Exception):
    """Something is wrong with the line, in OpenAI's words."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


async def read_lines(content: Content, longest: int) -> AsyncGenerator[InputLine, None]:
    """Every line but blank ones; at most ``longest`` bytes of one are held.

    Raises what the content raises: ``NotFound`` where the file was deleted.
    """
    number = 1
    held = _Held(longest)
    for start in range(0, content.size, _WINDOW_BYTES):
        block = await _read(content, start, min(start + _WINDOW_BYTES, content.size))
        if start == 0:
            block = block.removeprefix(_BYTE_ORDER_MARK)
        *ended, rest = block.split(b"\n")
        for part in ended:
            held.add(part)
            if (line := held.take(number)) is not None:
                yield line
            number += 1
        held.add(rest)
    if (line := held.take(number)) is not None:
        yield line


class _Held:
    """A line of which the end hasn't come."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= self._longest:
            self._pieces.append(piece)

    def take(self, number: int) -> InputLine | None:
        """The line, unless it is blank; the next one begins."""
        too_long = self._length > self._longest
        content = None if too_long else b"".join(self._pieces).strip()
        self._pieces, self._length = [], 0
        return InputLine(number, content) if content is None or content else None


def parse_line(content: bytes, endpoint: str) -> LineRequest:
    """What the line asks of this endpoint. Raises ``LineRefused``."""
    fields = _decode(content)
    for name, of in _FIELDS:
        if name not in fields:
            raise LineRefused(
                "missing_required_parameter", f"Missing required parameter: '{name}'.", name
            )
        _check_type(name, fields[name], of)
    custom_id = msgspec.json.decode(fields["custom_id"], type=str)
    if not 0 < len(custom_id) <= _LONGEST_ID:
        raise LineRefused(
            "invalid_request", f"'custom_id' has 1 to {_LONGEST_ID} characters.", "custom_id"
        )
    if msgspec.json.decode(fields["method"], type=str) != "POST":
        raise LineRefused("invalid_method", "The method of a request must be 'POST'.", "method")
    if endpoint_of(msgspec.json.decode(fields["url"], type=str)) != endpoint:
        raise LineRefused(
            "invalid_url",
            "The URL provided for this request does not match the batch endpoint.",
            "url",
        )
    body = msgspec.json.decode(fields["body"], type=dict[str, Raw])
    if "model" not in body:
        raise LineRefused(
            "missing_required_parameter", "Missing required parameter: 'model'.", "body.model"
        )
    _check_type("body.model", body["model"], str)
    if bytes(body.get("stream", b"")).strip() == b"true":
        raise LineRefused(
            "streaming_unsupported",
            "Streaming is not supported in batch processing.",
            "body.stream",
        )
    return LineRequest(custom_id, msgspec.json.decode(body["model"], type=str), body)


def _decode(content: bytes) -> dict[str, Raw]:
    try:
        if not content.isascii():
            content.decode("utf-8")  # the decoder passes strings by, unlooked at
        return msgspec.json.decode(content, type=dict[str, Raw])
    except msgspec.ValidationError:
        raise LineRefused(
            "invalid_request", "Each line must be a JSON dictionary object."
        ) from None
    except NOT_JSON:
        raise LineRefused(
            "invalid_json_line", "This line is not parseable as valid JSON."
        ) from None


def _check_type(name: str, value: Raw, of: type) -> None:
    try:
        msgspec.json.decode(value, type=dict[str, Raw] if of is dict else of)
    except NOT_JSON:
        raise LineRefused("invalid_request", f"'{name}' must be a {_WORDS[of]}.", name) from None


async def _read(content: Content, start: int, end: int) -> bytes:
    async with aclosing(content.read(start, end)) as blocks:
        return b"".join([block async for block in blocks])
