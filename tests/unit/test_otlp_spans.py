"""The gateway's own OTLP encoder writes what the SDK's writes, to the last field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as sdk_encode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.observability import otlp_spans
from gateway.observability.otlp_spans import EncodedSpans, encode_spans

TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXT, max_size=3).map(tuple),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple),
    st.lists(st.booleans(), max_size=3).map(tuple),
)
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), VALUES, max_size=6)
STATES = st.sampled_from([None, TraceState(), TraceState([("vendor", "abc"), ("b", "1")])])
RESOURCES = [
    Resource({"service.name": "understudy", "process.pid": 7}),
    Resource({}, schema_url="https://opentelemetry.io/schemas/1.30.0"),
]
SCOPES = [InstrumentationScope("understudy", "1.0"), InstrumentationScope("other")]
STATUSES = [
    Status(StatusCode.UNSET),
    Status(StatusCode.OK),
    Status(StatusCode.ERROR),
    Status(StatusCode.ERROR, "upstream_timeout"),
]


@st.composite
def spans(draw: Any) -> ReadableSpan:
    trace_id = draw(st.integers(1, 2**128 - 1))
    state = draw(STATES)

    def context(*, remote: bool) -> SpanContext:
        span_id = draw(st.integers(1, 2**64 - 1))
        return SpanContext(trace_id, span_id, remote, TraceFlags(TraceFlags.SAMPLED), state)

    begun = draw(st.integers(1, 2**62))
    return ReadableSpan(
        name=draw(TEXT),
        context=context(remote=False),
        parent=context(remote=draw(st.booleans())) if draw(st.booleans()) else None,
        resource=draw(st.sampled_from(RESOURCES)),
        attributes=draw(ATTRIBUTES),
        kind=draw(st.sampled_from(list(SpanKind))),
        status=draw(st.sampled_from(STATUSES)),
        start_time=begun,
        end_time=begun + draw(st.integers(0, 10**12)),
        instrumentation_scope=draw(st.sampled_from(SCOPES)),
    )


def decoded(encoded: Any) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(encoded.SerializePartialToString())


@settings(max_examples=200, deadline=None)
@given(batch=st.lists(spans(), max_size=4))
def test_both_encoders_say_the_same(batch):
    """Whatever is in the spans."""
    ours = encode_spans(batch)
    assert isinstance(ours, EncodedSpans)
    assert decoded(ours) == decoded(sdk_encode(batch))


def span(**more: Any) -> ReadableSpan:
    context = SpanContext(1, 2, False, TraceFlags(1))
    fields: dict[str, Any] = {
        "resource": RESOURCES[0],
        "instrumentation_scope": SCOPES[0],
        "kind": SpanKind.CLIENT,
        "start_time": 1,
        "end_time": 2,
        **more,
    }
    return ReadableSpan(name="chat", context=context, **fields)


@pytest.mark.parametrize(
    "odd",
    [
        {"events": (Event("content", {"a": "b"}, 5),)},
        {"attributes": {"nested": ("a", 1.5)}, "events": (Event("e", {}, 5),)},
        {"instrumentation_scope": InstrumentationScope("x", attributes={"a": 1})},
    ],
    ids=["event", "event and tuple", "scope attributes"],
)
def test_what_ours_does_not_know_goes_the_sdk_s_way(odd):
    """The whole batch, so that nothing is lost."""
    batch = [span(), span(**odd)]
    ours = encode_spans(batch)
    assert not isinstance(ours, EncodedSpans)
    assert decoded(ours) == decoded(sdk_encode(batch))


def test_equal_values_of_other_types_are_not_mixed_up():
    """1, 1.0 and True are equal in Python, and three things on the wire."""
    for value in (1, 1.0, True, "1", (1,), (True,), (1.0,)):
        batch = [span(attributes={"value": value})]
        assert decoded(encode_spans(batch)) == decoded(sdk_encode(batch)), value


def test_what_repeats_is_kept_and_not_without_bound(monkeypatch):
    """The cache of attributes is emptied when it is full."""
    monkeypatch.setattr(otlp_spans, "_CACHE_ENTRIES", 10)
    otlp_spans._attributes.clear()
    for number in range(50):
        encode_spans([span(attributes={"value": number, "again": "same"})])
        assert len(otlp_spans._attributes) <= 10


def test_the_exporter_uses_it():
    """After `install`, which only exchanges the encoder."""
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    otlp_spans.install()
    assert trace_exporter.encode_spans is encode_spans
