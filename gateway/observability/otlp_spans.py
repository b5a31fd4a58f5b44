"""Spans as OTLP's protobuf bytes, written directly.

The SDK builds a protobuf message object for every attribute of every span, which takes longer than
relaying the request did. The wire format is simple enough to write: a field is a tag, a length and
its bytes, and what repeats (names, models, routes) is encoded once and kept.

:func:`install` puts this in place of the exporter's own encoder, whose HTTP, retries, compression
and ``OTEL_*`` variables stay. A batch that holds what this doesn't know (links, events) goes the
SDK's way, and if the SDK one day calls its encoder differently, exporting only gets slower.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common import trace_encoder
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.trace import SpanKind, StatusCode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_CACHE_ENTRIES = 8192
_CACHED_CHARACTERS = 32
"""Longer texts are mostly ids, which never repeat."""

_KINDS = {
    SpanKind.INTERNAL: b"\x30\x01",
    SpanKind.SERVER: b"\x30\x02",
    SpanKind.CLIENT: b"\x30\x03",
    SpanKind.PRODUCER: b"\x30\x04",
    SpanKind.CONSUMER: b"\x30\x05",
}
_HAS_IS_REMOTE = struct.pack("<BBI", 0x85, 0x01, 0x100)
_IS_REMOTE = struct.pack("<BBI", 0x85, 0x01, 0x300)
_TIMES = struct.Struct("<BQBQ")
_DOUBLE = struct.Struct("<Bd")

_sdk_encode = trace_encoder.encode_spans
_attributes: dict[tuple[str, Any, type], bytes] = {}


class _UnknownError(Exception):
    """Something that only the SDK's encoder knows."""


class EncodedSpans:
    """Looks to the exporter like the protobuf message that it would have built."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def SerializeToString(self) -> bytes:  # noqa: N802  (protobuf's name)
        return self._body

    SerializePartialToString = SerializeToString


def install() -> None:
    """Make the OTLP/HTTP exporter encode with :func:`encode_spans` from now on."""
    setattr(trace_exporter, "encode_spans", encode_spans)  # noqa: B010  (not as typed there)


def encode_spans(spans: Sequence[ReadableSpan]) -> Any:
    """An ``ExportTraceServiceRequest``, equal to the SDK's to the last field."""
    try:
        return EncodedSpans(_encode(spans))
    except _UnknownError:
        return _sdk_encode(spans)


def _encode(spans: Sequence[ReadableSpan]) -> bytes:
    # By identity: the hash of a resource is that of its JSON, too dear for every span.
    groups: dict[int, tuple[Any, dict[int, tuple[Any, list[bytes]]]]] = {}
    for span in spans:
        _, scopes = groups.setdefault(id(span.resource), (span.resource, {}))
        scope = span.instrumentation_scope
        _, encoded = scopes.setdefault(id(scope), (scope, []))
        encoded.append(b"\x12" + _sized(_span(span)))
    return b"".join(
        b"\x0a" + _sized(_resource_spans(resource, scopes)) for resource, scopes in groups.values()
    )


def _resource_spans(resource: Any, scopes: dict[int, tuple[Any, list[bytes]]]) -> bytes:
    attributes = (b"\x0a" + _key_value(*item) for item in (resource.attributes or {}).items())
    parts = [b"\x0a", _sized(b"".join(attributes))]
    for scope, spans in scopes.values():
        if scope.attributes:
            raise _UnknownError
        described = b"".join((_text(b"\x0a", scope.name), _text(b"\x12", scope.version or "")))
        body = b"".join(
            (b"\x0a", _sized(described), *spans, _text(b"\x1a", scope.schema_url or ""))
        )
        parts += (b"\x12", _sized(body))
    parts.append(_text(b"\x1a", resource.schema_url or ""))
    return b"".join(parts)


def _span(span: ReadableSpan) -> bytes:
    if span.events or span.links or span.dropped_attributes:
        raise _UnknownError
    context, parent = span.context, span.parent
    parts = [
        b"\x0a\x10",
        context.trace_id.to_bytes(16, "big"),
        b"\x12\x08",
        context.span_id.to_bytes(8, "big"),
    ]
    if context.trace_state:
        parts.append(_text(b"\x1a", context.trace_state.to_header()))
    if parent is not None:
        parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
    parts += (
        _text(b"\x2a", span.name),
        _KINDS[span.kind],
        _TIMES.pack(0x39, span.start_time, 0x41, span.end_time),
    )
    known = _attributes
    for name, value in (span.attributes or {}).items():
        key = (name, value, type(value))
        parts.append(known.get(key) or _attribute(key))
    status = span.status
    if status.status_code is not StatusCode.UNSET:
        code = b"\x18\x02" if status.status_code is StatusCode.ERROR else b"\x18\x01"
        parts += (b"\x7a", _sized(_text(b"\x12", status.description or "") + code))
    else:
        parts.append(b"\x7a\x00")
    parts.append(_IS_REMOTE if parent is not None and parent.is_remote else _HAS_IS_REMOTE)
    return b"".join(parts)


def _attribute(key: tuple[str, Any, type]) -> bytes:
    """A span's attribute, which is remembered if it is likely to come again."""
    name, value, kind = key
    encoded = b"\x4a" + _key_value(name, value)
    if _repeats(kind, value):
        if len(_attributes) >= _CACHE_ENTRIES:
            _attributes.clear()
        _attributes[key] = encoded
    return encoded


def _repeats(kind: type, value: Any) -> bool:
    if kind is str:
        return len(value) <= _CACHED_CHARACTERS
    if kind is tuple:
        return all(isinstance(item, str) and len(item) <= _CACHED_CHARACTERS for item in value)
    return kind is not float


def _key_value(name: str, value: Any) -> bytes:
    return _sized(_text(b"\x0a", name) + b"\x12" + _sized(_value(value)))


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        encoded = value.encode("utf-8")
        return b"\x0a" + _varint(len(encoded)) + encoded
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return _DOUBLE.pack(0x21, value)
    if isinstance(value, tuple):
        return b"\x2a" + _sized(b"".join(b"\x0a" + _sized(_value(item)) for item in value))
    raise _UnknownError


def _text(tag: bytes, text: str) -> bytes:
    """A string field; protobuf leaves out empty ones."""
    if not text:
        return b""
    return tag + _sized(text.encode("utf-8"))


def _sized(body: bytes) -> bytes:
    size = len(body)
    return bytes((size,)) + body if size < 0x80 else _varint(size) + body


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
