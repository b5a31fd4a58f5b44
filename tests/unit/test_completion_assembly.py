"""A stream adds up to the chat completion that a plain answer would have been."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from gateway.http.validation import NOT_JSON
from gateway.stored_completions.assembly import Assembly
from tests.support.samples import names, sample

STREAMS = [
    name
    for name in names()
    if name.endswith("-stream") and sample(name).status == 200
    and b"chat.completion.chunk" in sample(name).body
    and not name.startswith("crash")
]  # fmt: skip


def assembled(*events: bytes) -> dict[str, Any]:
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    return assembly.completion("asked")


def of_sample(name: str) -> dict[str, Any]:
    return assembled(*(json.dumps(one).encode() for one in sample(name).payloads))


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_becomes_a_completion(name):
    """Of vLLM 0.32; with the caller's name of the model, and as OpenAI's types have it."""
    made = of_sample(name)
    ChatCompletion.model_validate(made, strict=True)
    payloads = sample(name).payloads
    assert made["id"] == payloads[0]["id"]
    assert made["created"] == payloads[0]["created"]
    assert made["model"] == "asked"
    for choice in made["choices"]:
        deltas = [
            one["choices"][0]["delta"]
            for one in payloads
            if one["choices"] and one["choices"][0]["index"] == choice["index"]
        ]
        said = "".join(delta.get("content") or "" for delta in deltas)
        assert (choice["message"]["content"] or "") == said
        assert choice["finish_reason"] in {"stop", "length", "tool_calls"}


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if name.startswith(("tools-", "chat-logprobs"))]
)
def test_it_has_what_the_plain_answer_has(name):
    """Calls of tools, and log probabilities, in the same shape."""
    [choice] = of_sample(name)["choices"]
    [plain] = sample(name.removesuffix("-stream")).json["choices"]
    calls = choice["message"].get("tool_calls") or []
    for call, other in zip(calls, plain["message"].get("tool_calls") or [], strict=True):
        assert call.keys() == other.keys()
        assert call["function"].keys() == other["function"].keys()
        json.loads(call["function"]["arguments"])
    if plain["logprobs"] is None:
        assert choice["logprobs"] is None
    else:
        tokens = [one["token"] for one in choice["logprobs"]["content"]]
        assert tokens == [one["token"] for one in plain["logprobs"]["content"]]


def test_reasoning_is_kept():
    """Beside the content."""
    [choice] = of_sample("flags-reasoning-and-content-stream")["choices"]
    assert choice["message"]["reasoning"]


def test_choices_stay_apart():
    """Two answers of one request, in their order."""
    first, second = of_sample("chat-n2-stream")["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["message"]["content"]
    assert second["message"]["content"]


def test_a_refusal_is_kept():
    """It comes in pieces as well."""
    made = assembled(
        b'{"choices":[{"index":0,"delta":{"role":"assistant","refusal":"I "}}]}',
        b'{"choices":[{"index":0,"delta":{"refusal":"won\'t."},"finish_reason":"stop"}]}',
        b'{"choices":[],"usage":{"prompt_tokens":1}}',
    )
    [choice] = made["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "I won't."}
    assert made["usage"] == {"prompt_tokens": 1}


def test_its_size_is_known():
    """Of what was said, not of the events around it."""
    assembly = Assembly()
    for _ in range(100):
        assembly.add(
            b'{"id":"x","object":"chat.completion.chunk","choices":[{"delta":{"content":"ab"}}]}'
        )
    assert assembly.size == 200


KEYS = (
    *("id", "choices", "delta", "index", "content", "tool_calls", "function", "name"),
    *("logprobs", "usage", "finish_reason", "arguments", "type", "role"),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(events=st.lists(ANYTHING | st.builds(lambda one: {"choices": [one]}, ANYTHING), max_size=3))
def test_nothing_that_is_answered_breaks_it(events):
    """It is a completion, or it is told."""
    try:
        made = assembled(*(json.dumps(event).encode() for event in events))
    except NOT_JSON:
        return
    json.dumps(made)
