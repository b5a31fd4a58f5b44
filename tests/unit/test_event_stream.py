"""Server-sent events are cut at their boundaries, wherever the network cut them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.http import event_stream
from gateway.http.event_stream import (
    EventCutter,
    error_event,
    event_data,
    split_events,
    with_data,
)
from tests.support.expect import error_in

TEXT = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1, max_size=30)
LINES = st.lists(TEXT.map(lambda text: "data: " + text), min_size=1, max_size=3)
COMMENTS = TEXT.map(lambda text: [": " + text])
NAMED = st.tuples(TEXT, LINES).map(lambda pair: ["event: " + pair[0], *pair[1]])


def written(lines: list[str], end: str) -> bytes:
    return (end.join(lines) + end + end).encode()


EVENTS = st.lists(
    st.builds(written, st.one_of(LINES, COMMENTS, NAMED), st.sampled_from(["\n", "\r\n"])),
    min_size=1,
    max_size=6,
)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces."""
    ends = sorted({place % (len(whole) + 1) for place in places} | {0, len(whole)})
    return [whole[start:end] for start, end in itertools.pairwise(ends)]


@given(events=EVENTS, places=st.lists(st.integers(min_value=0), max_size=12))
def test_any_cut_gives_the_same_events(events, places):
    """Nothing is lost, nothing is added, and only whole events leave."""
    cutter = EventCutter()
    ends = {sum(map(len, events[: count + 1])) for count in range(len(events))} | {0}
    passed = b""
    for block in cut(b"".join(events), places):
        passed += cutter.feed(block)
        assert len(passed) in ends
    assert passed == b"".join(events)
    assert cutter.rest == b""


@given(events=EVENTS)
def test_one_byte_at_a_time_gives_each_event_when_it_is_whole(events):
    """Not one byte later."""
    cutter = EventCutter()
    left = [part for byte in b"".join(events) if (part := cutter.feed(bytes([byte])))]
    assert left == events


@given(events=EVENTS, rest=st.binary(max_size=40).filter(lambda data: b"\n" not in data))
def test_what_never_ended_is_held_back(events, rest):
    """Half an event stays here."""
    cutter = EventCutter()
    assert cutter.feed(b"".join(events) + rest) == b"".join(events)
    assert cutter.rest == rest


@given(events=EVENTS)
def test_events_split_where_they_end(events):
    """A block of whole events is the events."""
    assert split_events(b"".join(events)) == events


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  {}\n\n", b" {}"),
        (b"data: {}\r\n\r\n", b"{}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: x\ndata: {}\nid: 5\n\n", b"{}"),
        (b": ping\n\n", b""),
        (b"event: x\n\n", b""),
        (b"data: [DONE]\n\n", b"[DONE]"),
    ],
)
def test_the_data_of_an_event(event, data):
    """As the standard says: one blank after the colon, several lines joined."""
    assert event_data(event) == data


@given(lines=LINES, end=st.sampled_from(["\n", "\r\n"]))
def test_data_reads_back(lines, end):
    """Whatever it holds."""
    expected = "\n".join(line[6:] for line in lines).encode()
    assert event_data(written(lines, end)) == expected


def test_other_fields_stay_when_data_is_replaced():
    """The name of an event and its id."""
    event = with_data(b"event: message_start\r\nid: 1\r\ndata: {}\r\n\r\n", b'{"a":1}')
    assert event == b'event: message_start\nid: 1\ndata: {"a":1}\n\n'


def test_an_event_without_an_end_is_refused(monkeypatch):
    """A server that never ends an event doesn't fill the memory."""
    monkeypatch.setattr(event_stream, "MAX_EVENT_BYTES", 1000)
    cutter = EventCutter()
    with pytest.raises(UpstreamError):
        for _ in range(20):
            cutter.feed(b"x" * 100)


def test_an_error_becomes_an_event():
    """In OpenAI's shape."""
    event = error_event(UpstreamTimeout("too long"))
    assert event.endswith(b"\n\n")
    assert error_in(event_data(event)) == {
        "message": "too long",
        "type": "timeout_error",
        "param": None,
        "code": "upstream_timeout",
    }
