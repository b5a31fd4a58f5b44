"""What vLLM's errors mean in OpenAI's words: over all that were recorded, and by rule."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.vllm.refusals import event_error, refusal
from gateway.errors import GatewayError
from tests.support.expect import error_in
from tests.support.samples import names, sample

CHAT, EMBEDDINGS, MESSAGES = "/v1/chat/completions", "/v1/embeddings", "/v1/messages"

MEANT: dict[str, tuple[int, str | None, str | None]] = {
    "chat-image-to-text-model": (400, "messages", None),
    "chat-n2-temp0": (400, "n", None),
    "chat-stream_options-without-stream": (400, "stream_options", None),
    "chat-toplogprobs-21": (400, "logprobs", None),
    "completions-missing-prompt": (400, "prompt", None),
    "completions-unknown-model": (404, "model", "model_not_found"),
    "crash-worker-killed-inflight-nonstream": (500, None, None),
    "emb-bad-encoding": (400, "encoding_format", None),
    "emb-chat-on-embedding-server": (404, None, "model_not_supported"),
    "emb-dimensions": (400, "dimensions", None),
    "emb-empty-list": (400, "input", None),
    "emb-rerank-missing-query": (400, "query", None),
    "emb-too-long": (400, "input", "context_length_exceeded"),
    "emb-unknown-model": (404, "model", "model_not_found"),
    "err-404-path": (404, None, "model_not_supported"),
    "err-405": (405, None, None),
    "err-content-type-none": (400, None, None),
    "err-content-type-text-plain": (400, None, None),
    "err-embeddings-on-chat-server": (404, None, "model_not_supported"),
    "err-empty-body": (400, None, None),
    "err-empty-messages": (400, "messages", None),
    "err-malformed-json": (400, None, None),
    "err-max_tokens-0": (400, "max_tokens", None),
    "err-max_tokens-beyond-context": (400, "max_tokens", None),
    "err-missing-messages": (400, "messages", None),
    "err-n-0": (400, "n", None),
    "err-no-model": (400, None, None),
    "err-prompt-beyond-context": (400, "messages", "context_length_exceeded"),
    "err-prompt-beyond-context-stream": (400, "messages", "context_length_exceeded"),
    "err-rerank-on-chat-server": (404, None, "model_not_supported"),
    "err-temperature": (400, "temperature", None),
    "err-temperature-string": (400, "temperature", None),
    "err-top_p": (400, "top_p", None),
    "err-unknown-model": (404, "model", "model_not_found"),
    "err-wrong-type-messages": (400, "messages", None),
    "flags-auth-missing": (502, None, "upstream_refused_credentials"),
    "flags-auth-models": (502, None, "upstream_refused_credentials"),
    "flags-auth-wrong": (502, None, "upstream_refused_credentials"),
    "flags-error-reqid": (404, "model", "model_not_found"),
    "messages-count_tokens-unknown-model": (404, "model", "model_not_found"),
    "messages-max_tokens-0": (400, "max_tokens", None),
    "messages-max_tokens-beyond-context": (400, "max_tokens", None),
    "messages-missing-max_tokens": (400, "max_tokens", None),
    "messages-temperature-string": (400, "temperature", None),
    "messages-unknown-model": (404, "model", "model_not_found"),
    "models-one": (404, None, "model_not_supported"),
    "overload-rejected": (503, None, "upstream_unavailable"),
    "shutdown-sigterm-inflight-nonstream": (500, None, None),
    "tokenize-missing-prompt": (400, "prompt", None),
    "tools-choice-without-tools": (400, "tool_choice", None),
    "tools-named-unknown": (400, "tool_choice", None),
}
RECORDED = [name for name in names() if sample(name).status >= 400]


def of(name: str) -> GatewayError:
    found = sample(name)
    return refusal(
        found.status,
        found.headers["content-type"].partition(";")[0],
        found.body,
        path=(found.path or CHAT).replace("/v2", "/v1"),
    )


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_errors_mean_this(name):
    """Status, parameter and code; the message is a sentence."""
    error = of(name)
    shown = error_in(error.body())
    assert (error.status, shown["param"], shown["code"]) == MEANT[name]
    for mark in ("validation error", "{'type'", "body.", "\n", "ctx"):
        assert mark not in shown["message"]


def test_a_dump_of_a_validation_becomes_a_sentence():
    """What Pydantic said, about the parameter."""
    assert of("err-temperature-string").message == (
        "Invalid value for 'temperature': Input should be a valid number, unable to parse string as"
        " a number."
    )


def test_the_caller_s_own_credentials_are_the_caller_s_matter():
    """Where they were forwarded."""
    body = b'{"error":"Unauthorized"}'
    ours = refusal(401, "application/json", body)
    theirs = refusal(401, "application/json", body, credentials_forwarded=True)
    assert (ours.status, theirs.status, theirs.code) == (502, 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (b"7", 7),
        (None, 1),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", 1),
        (b"-1", 1),
        (b"007", 7),
        (b"9" * 5000, 3600),
    ],
)
def test_how_long_to_wait(given_value, expected):
    """In seconds as the server says, one second where it doesn't."""
    error = refusal(503, "application/json", b"{}", retry_after=given_value)
    assert error.retry_after == expected


def test_retry_after_belongs_to_429_and_503_alone():
    """Elsewhere it would be misleading."""
    assert refusal(400, "application/json", b"{}", retry_after=b"7").headers() == []


def test_a_very_long_message_is_cut():
    """Nobody reads a megabyte."""
    body = msgspec.json.encode({"error": {"message": "x" * 1_000_000, "code": 400}})
    assert len(refusal(400, "application/json", body).message) == 4096


@given(
    status=st.integers(201, 599),
    body=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["error", "detail", "message", "param", "code", "type"]), inner
                )
            ),
        ).map(msgspec.json.encode),
    ),
    content_type=st.sampled_from(["application/json", "text/html", "text/plain", ""]),
)
def test_nothing_that_a_server_says_breaks_it(status, body, content_type):
    """Any status, any body: one shape, and 4xx never becomes 2xx."""
    error = refusal(status, content_type, body, path=CHAT)
    shown = error_in(error.body())
    assert error.status >= 400
    assert shown["code"] is None or not shown["code"].isdigit()
    if status >= 500:
        assert error.status >= 500


@given(
    st.binary(max_size=60) | st.text(max_size=20).map(lambda t: msgspec.json.encode({"error": t}))
)
def test_nothing_in_an_event_breaks_it(data):
    """An error or none."""
    error = event_error(data)
    assert error is None or error.status >= 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"error": {"message": "m", "code": 503}}, 503),
        ({"error": {"message": "m", "code": 400}}, 400),
        ({"error": {"message": "m", "code": "busy"}}, 500),
        ({"error": {"message": "m", "code": 200}}, 500),
        ({"error": "m"}, 500),
        ({"type": "error", "error": {"type": "x", "message": "m"}}, 500),
    ],
)
def test_an_event_s_status(data: Any, status):
    """By its code, where that is one."""
    error = event_error(msgspec.json.encode(data))
    assert error is not None
    assert (error.status, error.message) == (status, "m")


@pytest.mark.parametrize(
    "report", ["5", "'x'", "[1]", "{1: 2}", "[" * 2000, "{'loc': (", "-" * 3000]
)
def test_a_report_in_an_unknown_form_is_passed_on(report):
    """Whatever stands where Pydantic's report should, the answer is a 400 with words in it."""
    said = {"message": f"1 validation error:\n  {report}", "type": "Bad Request", "code": 400}
    error = refusal(400, "application/json", msgspec.json.encode({"error": said}))
    assert error.status == 400
    assert error.message
