"""A conversation as a trace may hold it, put together from what passes by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat.transcript import MAX_CONTENT_CHARACTERS, ChatTranscript
from tests.support.samples import names, sample


def sent(*messages: Any) -> Any:
    transcript = ChatTranscript(json.dumps({"messages": messages}).encode())
    return json.loads(transcript.content()["gen_ai.input.messages"])


def received(*answers: bytes, streamed: bool = False) -> Any:
    transcript = ChatTranscript(b'{"messages":[]}')
    for answer in answers:
        if streamed:
            transcript.event(answer)
        else:
            transcript.answer(answer)
    return json.loads(transcript.content()["gen_ai.output.messages"])


def test_what_was_sent():
    """Text, parts, tool calls and their results."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert sent(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What?\n[image_url]"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": '{"a":1}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "42"}]},
    ]


def pieces_of(name: str) -> Any:
    recorded = sample(name)
    if recorded.events and recorded.headers["content-type"].startswith("text/event-stream"):
        data = [json.dumps(payload).encode() for payload in recorded.payloads]
        return received(*data, streamed=True)
    return received(recorded.body)


@pytest.mark.parametrize(
    "name", [name for name in names() if name.startswith("tools-") and name.endswith("-stream")]
)
def test_a_streamed_tool_call_is_put_together(name):
    """As a whole one has it: name and arguments in one, and arguments that are JSON."""
    [message] = pieces_of(name)
    [whole] = pieces_of(name.removesuffix("-stream"))
    calls = [part for part in message["parts"] if part["type"] == "tool_call"]
    wholes = [part for part in whole["parts"] if part["type"] == "tool_call"]
    assert [call["name"] for call in calls] == [call["name"] for call in wholes]
    assert calls
    for call in calls:
        assert call["id"]
        json.loads(call["arguments"])


def test_a_plain_answer():
    """Text and reason."""
    choice = sample("chat-nonstream").json["choices"][0]
    assert pieces_of("chat-nonstream") == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": choice["message"]["content"]}],
            "finish_reason": choice["finish_reason"],
        }
    ]


@pytest.mark.parametrize("name", ["chat-n2", "chat-n2-stream"])
def test_choices_stay_apart(name):
    """Two answers of one request, in their order."""
    one, two = pieces_of(name)
    assert one["parts"][0]["content"]
    assert two["parts"][0]["content"]


def test_a_stream_that_broke_off_is_kept_as_far_as_it_came():
    """Without a reason."""
    chunk = b'{"choices":[{"index":0,"delta":{"content":"Hel"}}]}'
    [message] = received(chunk, streamed=True)
    assert (message["parts"], message["finish_reason"]) == (
        [{"type": "text", "content": "Hel"}],
        "",
    )


def test_long_content_is_cut():
    """Exporters refuse huge spans."""
    [message] = sent({"role": "user", "content": "x" * 1_000_000})
    assert len(message["parts"][0]["content"]) == MAX_CONTENT_CHARACTERS


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["id", "type", "text", "function", "name", "arguments", "index", "content"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"])},
    optional={"content": ANYTHING, "tool_calls": ANYTHING, "tool_call_id": ANYTHING},
)


@given(messages=st.lists(MESSAGES, max_size=3))
def test_nothing_that_is_sent_breaks_it(messages):
    """Telemetry takes what it gets."""
    assert len(sent(*messages)) == len(messages)


@given(message=ANYTHING, streamed=st.booleans())
def test_nothing_that_is_answered_breaks_it(message, streamed):
    """The same for answers."""
    key = "delta" if streamed else "message"
    received(json.dumps({"choices": [{key: message}]}).encode(), streamed=streamed)
    calls = {"choices": [{key: {"tool_calls": message}}]}
    received(json.dumps(calls).encode(), streamed=streamed)
