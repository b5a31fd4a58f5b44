"""W3C trace context: read from a request, written to the next."""

from __future__ import annotations

import re

from msgspec import Struct

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


class TraceContext(Struct, frozen=True):
    """Where a caller's trace stands.

    ``trace_id`` and ``span_id`` are integers of 128 and 64 bits, never zero; ``header`` is the
    ``traceparent`` as it came.
    """

    trace_id: int
    span_id: int
    sampled: bool
    header: bytes
    tracestate: bytes | None = None


def parse_traceparent(value: bytes, tracestate: bytes | None = None) -> TraceContext | None:
    """The context of a ``traceparent`` header, ``None`` where the W3C says to ignore it."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if trace == 0 or span == 0:
        return None
    return TraceContext(trace, span, bool(int(flags, 16) & _SAMPLED), value, tracestate)


def format_traceparent(trace_id: int, span_id: int, *, sampled: bool) -> bytes:
    return b"00-%032x-%016x-%02x" % (trace_id, span_id, sampled)
