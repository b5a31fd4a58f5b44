"""Server-sent events as bytes: cut at their boundaries, read, written, never patched."""

from __future__ import annotations

import re

import msgspec

from gateway.errors import GatewayError, UpstreamError

PING = b": ping\n\n"
"""A comment, which every client ignores and every proxy counts as traffic."""

DONE = b"[DONE]"
MAX_EVENT_BYTES = 32 * 1024 * 1024

_EVENT = re.compile(rb".+?\r?\n\r?\n", re.DOTALL)
_LINE_END = re.compile(rb"\r?\n")


class EventCutter:
    """Cuts a stream of blocks so that only whole events leave.

    What is held back is the start of an event whose end has not come; a stream that breaks off
    therefore never leaves half an event with the caller.
    """

    __slots__ = ("_held", "_size", "_tail")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._tail = b""

    def feed(self, block: bytes) -> bytes:
        """The whole events that are complete now, maybe none.

        Raises ``UpstreamError`` when one event alone passes ``MAX_EVENT_BYTES``.
        """
        if not self._held:
            if block.endswith(b"\n\n"):
                return block
        else:
            if _end_of_last_event(self._tail + block) == 0:
                self._hold(block)
                return b""
            block = b"".join([*self._held, block])
            self._held.clear()
            self._size = 0
        end = _end_of_last_event(block)
        if end == len(block):
            return block
        self._hold(block[end:])
        return block[:end]

    @property
    def rest(self) -> bytes:
        """What came of an event that never ended."""
        return b"".join(self._held)

    def _hold(self, block: bytes) -> None:
        self._tail = ((self._tail if self._held else b"") + block)[-2:]
        self._held.append(block)
        self._size += len(block)
        if self._size > MAX_EVENT_BYTES:
            raise UpstreamError("The model server sent an event without an end.")


def split_events(block: bytes) -> list[bytes]:
    """Whole events, each with the blank line that ends it."""
    return _EVENT.findall(block)


def event_data(event: bytes) -> bytes:
    """The data of one event; empty for a comment."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2:
        return event[6:-2].rstrip(b"\r")
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")
    ]
    return b"\n".join(lines)


def with_data(event: bytes, data: bytes) -> bytes:
    """The same event with other data; its other fields stay."""
    fields = [line for line in _LINE_END.split(event) if line and not line.startswith(b"data:")]
    return b"\n".join([*fields, b"data: " + data]) + b"\n\n"


def error_event(error: GatewayError) -> bytes:
    """An error inside a stream whose status is already out; OpenAI's SDKs raise on it."""
    return b"data: " + msgspec.json.encode({"error": error.to_dict()}) + b"\n\n"


def _end_of_last_event(block: bytes) -> int:
    """Where the last whole event ends, 0 where none does."""
    line_feed = block.rfind(b"\n\n")
    carriage_return = block.rfind(b"\n\r\n")
    return max(
        line_feed + 2 if line_feed >= 0 else 0, carriage_return + 3 if carriage_return >= 0 else 0
    )
