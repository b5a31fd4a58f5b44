"""Items on their way in: checked, brought into one form, and named where they are wrong; and on
their way out: what a caller sees who asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.http.validation import MAX_DEPTH
from gateway.items.including import includes, shown
from gateway.items.parsing import item_id, parse_items, user_message
from gateway.items.schemas import ITEM_PREFIXES


def parsed(item: Any) -> dict[str, Any]:
    [form] = parse_items([item], "input")
    return form


def refused(*items: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_items(items, "input")
    assert f"'{caught.value.param}'" in caught.value.message or caught.value.param == "input"
    return caught.value


def test_a_message_may_be_short():
    """A role and a text are enough; type, id, status and parts are added."""
    form = parsed({"role": "user", "content": "hi"})
    assert form.pop("id").startswith("msg_")
    assert form == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_what_a_model_said_is_output():
    """With the lists that clients expect there."""
    [part] = parsed({"role": "assistant", "content": "hi"})["content"]
    assert part == {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}


def test_what_is_not_known_of_an_item_is_kept():
    """Clients get back what they stored."""
    item = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "phase": "commentary",
        "content": [{"type": "refusal", "refusal": "no", "why": {"a": [1.5, None]}}],
    }
    assert parsed(item) == item


@pytest.mark.parametrize("kind", sorted(ITEM_PREFIXES))
def test_ids_begin_with_what_their_kind_has(kind):
    """And go on with 48 hexadecimal digits."""
    prefix, digits = ITEM_PREFIXES[kind], item_id(kind).removeprefix(ITEM_PREFIXES[kind])
    assert item_id(kind).startswith(prefix)
    assert len(digits) == 48
    assert int(digits, 16) >= 0


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": ""}],
        },
        {"type": "reasoning", "summary": []},
        {"type": "file_search_call", "queries": ["q"]},
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "t"}]},
        {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}"},
        {"type": "mcp_approval_request", "server_label": "s", "name": "n", "arguments": "{}"},
        {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True},
        {"type": "compaction", "encrypted_content": "e"},
    ],
    ids=lambda item: item["type"],
)
def test_every_kind_of_item_is_taken(item):
    """It gets an id and else stays as it is, but for a status where there is one."""
    form = parsed(item)
    assert form.pop("id").startswith(ITEM_PREFIXES[item["type"]])
    assert form.pop("status", "completed") == "completed"
    assert form == item


def test_a_reference_stays_one():
    """With or without its type; the same one twice is for others to judge."""
    assert parsed({"id": "msg_1"}) == {"type": "item_reference", "id": "msg_1"}
    again = [{"type": "item_reference", "id": "a"}] * 2
    assert parse_items(again, "input") == again


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (5, "input[0]"),
        ({}, "input[0].type"),
        ({"type": "nonsense"}, "input[0].type"),
        ({"type": "item_reference"}, "input[0].id"),
        ({"role": "emperor", "content": "hi"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": None}, "input[0].content"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "user", "content": [{"type": "video"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[0].content[0].image_url"),
        ({"role": "user", "content": [{"type": "input_file"}]}, "input[0].content[0].file_id"),
        ({"role": "user", "content": "hi", "id": "x" * 81}, "input[0].id"),
        ({"role": "user", "content": "hi", "id": "a\x00"}, "input[0].id"),
        ({"type": "function_call", "name": "f", "arguments": ""}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "c", "name": 1, "arguments": ""}, "input[0].name"),
    ],
)
def test_what_is_wrong_is_named(item, param):
    """As OpenAI does, with its place in the list."""
    assert refused(item).param == param


def test_a_wrong_type_is_told_with_the_right_ones():
    """Each of them once."""
    message = refused({"role": "user", "content": [{"type": "video"}]}).message
    assert message.count("'reasoning_text'") == 1
    assert "'input_text'" in message


def test_the_same_id_twice_is_refused():
    """In one request there is one item of an id."""
    item = {"id": "msg_1", "role": "user", "content": "hi"}
    assert refused(item, item).code == "invalid_value"


def test_what_is_nested_too_deep_is_refused():
    """What is stored must be readable later, from whatever call stack."""
    deep: Any = {}
    for _ in range(MAX_DEPTH):
        deep = {"a": [deep]}
    assert refused({"role": "user", "content": "hi", "deep": deep}).param == "input"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "id", "content", "text", "status", "output", "action"])
            | st.text(max_size=3),
            inner
            | st.sampled_from([*ITEM_PREFIXES, "user", "assistant", "input_text", "output_text"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(items=st.lists(ANYTHING, max_size=3))
def test_anything_is_an_item_or_a_mistake(items):
    """Whatever is taken can be stored, shown, and is what it was when it is taken again."""
    try:
        forms = parse_items(items, "input")
    except InvalidRequest:
        return
    assert parse_items(forms, "input") == forms
    for form in forms:
        json.dumps(shown(form, frozenset()))


def test_plain_text_is_a_message_of_the_user():
    """In the form that parsing gives."""
    message = user_message("hi")
    assert parse_items([message], "input") == [message]


FOUND = [{"file_id": "file-1"}]
LOGPROB = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}


@pytest.mark.parametrize(
    ("item", "value", "hidden"),
    [
        (
            {"type": "file_search_call", "queries": [], "results": FOUND},
            "file_search_call.results",
            {"type": "file_search_call", "queries": [], "results": None},
        ),
        (
            {"type": "web_search_call", "action": {"type": "search", "sources": [{}]}},
            "web_search_call.action.sources",
            {"type": "web_search_call", "action": {"type": "search"}},
        ),
        (
            {"type": "web_search_call", "action": None, "results": [{}]},
            "web_search_call.results",
            {"type": "web_search_call", "action": None},
        ),
        (
            {"type": "message", "content": [{"type": "output_text", "logprobs": [LOGPROB]}]},
            "message.output_text.logprobs",
            {"type": "message", "content": [{"type": "output_text", "logprobs": []}]},
        ),
        (
            {"type": "reasoning", "summary": [], "encrypted_content": "e"},
            "reasoning.encrypted_content",
            {"type": "reasoning", "summary": []},
        ),
    ],
)
def test_some_of_an_item_is_shown_on_request_only(item, value, hidden):
    """What is stored stays as it is."""
    before = json.dumps(item)
    assert shown(item, frozenset({value})) == item
    assert shown(item, frozenset()) == hidden
    assert json.dumps(item) == before


def test_images_are_always_shown():
    """Their URL is the caller's own."""
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    item = {"type": "message", "content": [image]}
    assert shown(item, frozenset()) == item


def test_what_cannot_be_included_is_named():
    """With its place, and what could."""
    asked = ["file_search_call.results", "everything"]
    with pytest.raises(InvalidRequest) as caught:
        includes(asked)
    assert caught.value.param == "include[1]"
    assert "'reasoning.encrypted_content'" in caught.value.message
    assert includes(asked[:1]) == {"file_search_call.results"}
