"""W3C's `traceparent` is read as W3C says, and written so that it reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observability.trace_context import format_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@given(
    trace_id=st.integers(1, 2**128 - 1), span_id=st.integers(1, 2**64 - 1), sampled=st.booleans()
)
def test_what_is_written_reads_back(trace_id, span_id, sampled):
    """Every id and either flag."""
    header = format_traceparent(trace_id, span_id, sampled=sampled)
    context = parse_traceparent(header, b"a=1")
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (trace_id, span_id, sampled)
    assert (context.header, context.tracestate) == (header, b"a=1")


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_only_the_last_bit_of_the_flags_samples(flags, sampled):
    """The others have other meanings, or none yet."""
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}".encode())
    assert context is not None
    assert context.sampled is sampled


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-x",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"0g-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00_{TRACE}_{SPAN}_01",
    ],
)
def test_what_is_malformed_is_ignored(value):
    """As if the header weren't there."""
    assert parse_traceparent(value.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_raise(value):
    """Whatever a caller sends."""
    parse_traceparent(value)


def test_a_later_version_is_read_as_far_as_it_is_known():
    """Fields that came later are left alone."""
    context = parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings".encode())
    assert context is not None
    assert f"{context.span_id:016x}" == SPAN
