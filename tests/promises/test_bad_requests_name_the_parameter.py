"""A wrong request is refused before any model server sees it, with a 4xx that names the parameter;
no request, however odd, is the gateway's fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.expect import error_in, refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
INFERENCE_RERANK = "/v1alpha/inference/rerank"
MESSAGES = "/v1/messages"
MODEL = {"model": "fake-chat"}
HI = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {**MODEL, "messages": HI},
    COMPLETIONS: {**MODEL, "prompt": "hi"},
    EMBEDDINGS: {"model": "fake-embedding", "input": "hi"},
    RERANK: {"model": "fake-embedding", "query": "a", "documents": ["b"]},
    INFERENCE_RERANK: {"model": "fake-embedding", "query": "a", "items": ["b"]},
    MESSAGES: {**MODEL, "messages": HI, "max_tokens": 5},
    "/v1/messages/count_tokens": {**MODEL, "messages": HI},
    "/tokenize": {**MODEL, "prompt": "hi"},
    "/detokenize": {**MODEL, "tokens": [1]},
}
MAX_BODY_BYTES = 200_000
_ABSENT = object()

WRONG: list[tuple[str, str, Any, str]] = [
    *[(path, "model", _ABSENT, "model") for path in GOOD],
    *[(path, "model", 5, "model") for path in GOOD],
    *[(path, "model", None, "model") for path in GOOD],
    *[(path, "stream", "yes", "stream") for path in (CHAT, COMPLETIONS, MESSAGES)],
    *[
        (path, field, value, field)
        for path in (CHAT, MESSAGES, "/v1/messages/count_tokens")
        for field, value in (("messages", _ABSENT), ("messages", []), ("messages", "hi"))
    ],
    *[
        (path, field, value, field)
        for path in (CHAT, COMPLETIONS)
        for field, value in (
            ("temperature", "hot"),
            ("top_p", [1]),
            ("stop", 5),
            ("max_tokens", "x"),
            ("max_tokens", 1.5),
            ("n", "a"),
            ("seed", "x"),
            ("user", 5),
            ("stream_options", True),
        )
    ],
    (CHAT, "messages", [{"content": "hi"}], "messages[0].role"),
    (CHAT, "messages", [*HI, "hi"], "messages[1]"),
    (CHAT, "messages", [*HI, {"role": 5}], "messages[1].role"),
    (CHAT, "tools", "all", "tools"),
    (CHAT, "tools", ["all"], "tools[0]"),
    (CHAT, "response_format", "json", "response_format"),
    (CHAT, "response_format", {}, "response_format.type"),
    (CHAT, "max_completion_tokens", "x", "max_completion_tokens"),
    (CHAT, "stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
    (COMPLETIONS, "prompt", _ABSENT, "prompt"),
    (COMPLETIONS, "prompt", 5, "prompt"),
    (COMPLETIONS, "prompt", [1.5], "prompt[0]"),
    (EMBEDDINGS, "input", _ABSENT, "input"),
    (EMBEDDINGS, "input", [], "input"),
    (EMBEDDINGS, "input", 5, "input"),
    (EMBEDDINGS, "input", None, "input"),
    (EMBEDDINGS, "input", [{"a": 1}], "input[0]"),
    (EMBEDDINGS, "encoding_format", "hex", "encoding_format"),
    (EMBEDDINGS, "dimensions", 0, "dimensions"),
    (EMBEDDINGS, "dimensions", "big", "dimensions"),
    (RERANK, "query", _ABSENT, "query"),
    (RERANK, "documents", _ABSENT, "documents"),
    (RERANK, "top_n", "x", "top_n"),
    (INFERENCE_RERANK, "query", _ABSENT, "query"),
    (INFERENCE_RERANK, "items", _ABSENT, "items"),
    (INFERENCE_RERANK, "items", [], "items"),
    (INFERENCE_RERANK, "items", ["a", {"type": "image_url", "image_url": {}}], "items[1]"),
    (INFERENCE_RERANK, "query", {"type": "image_url", "image_url": {}}, "query"),
    (INFERENCE_RERANK, "max_num_results", 0, "max_num_results"),
    (MESSAGES, "max_tokens", _ABSENT, "max_tokens"),
    (MESSAGES, "max_tokens", 0, "max_tokens"),
    (MESSAGES, "stop_sequences", "x", "stop_sequences"),
    ("/tokenize", "prompt", 5, "prompt"),
    ("/detokenize", "tokens", _ABSENT, "tokens"),
    ("/detokenize", "tokens", ["a"], "tokens[0]"),
]


def wrong(path: str, field: str, value: Any) -> dict[str, Any]:
    """The good body of a path with one field wrong, or gone."""
    body = {**GOOD[path], field: value}
    return {name: value for name, value in body.items() if value is not _ABSENT}


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[list[FakeVllm]]:
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm(["fake-embedding"], kind="embedding") as embedding,
    ):
        yield [chat, embedding]


@pytest.fixture(scope="module")
async def gateway(servers) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[server.url for server in servers],
        models=["fake-chat", "fake-embedding"],
        limits={"max_body_bytes": MAX_BODY_BYTES},
        discover_interval_seconds=3600,
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def client(gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


def posts(servers: list[FakeVllm]) -> int:
    return sum(request.method == "POST" for server in servers for request in server.requests)


@pytest.mark.parametrize(
    ("path", "field", "value", "param"),
    WRONG,
    ids=[f"{p}-{f}-{'absent' if v is _ABSENT else json.dumps(v)}" for p, f, v, _ in WRONG],
)
async def test_a_wrong_field_is_named(client, servers, path, field, value, param):
    """400, `param` and the message name it, and no model server has seen the request."""
    before = posts(servers)
    answer = await client.post(path, json=wrong(path, field, value))
    error = refused(answer, 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert f"'{param}'" in error["message"]
    assert error["code"] in {
        "missing_required_parameter",
        "invalid_type",
        "invalid_value",
        "empty_array",
    }
    assert posts(servers) == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "messages",
            _ABSENT,
            "Missing required parameter: 'messages'.",
        ),
        (
            "messages",
            "hi",
            "Invalid type for 'messages': expected an array, but got a string instead.",
        ),
        (
            "temperature",
            "hot",
            "Invalid type for 'temperature': expected a number, but got a string instead.",
        ),
    ],
)
async def test_the_words_are_openai_s(client, field, value, message):
    """So that what people find when they search for the message is about the same mistake."""
    answer = await client.post(CHAT, json=wrong(CHAT, field, value))
    assert refused(answer, 400)["message"] == message


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'{"model": "fake-chat"',
        b"{'model': 'fake-chat'}",
        b'{"model": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        b'{"model": NaN}',
        b'{"model": "fake-chat", "x": ' + b"[" * 50_000,
        b'{"x":' * 20_000 + b"1" + b"}" * 20_000,
    ],
    ids=[
        "empty", "words", "cut off", "quotes", "utf-8", "bom", "nan", "deep", "deeper",
    ],
)  # fmt: skip
async def test_what_is_not_json_is_refused(client, path, body):
    """A body that doesn't parse is 400 invalid_json."""
    answer = await client.post(path, content=body)
    assert refused(answer, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("path", GOOD)
async def test_what_follows_the_json_is_refused(client, path):
    """A good object with something after it isn't JSON."""
    answer = await client.post(path, content=json.dumps(GOOD[path]) + " {}")
    assert refused(answer, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"null", b"true"])
async def test_what_is_not_an_object_is_refused(client, path, body):
    """JSON that isn't an object is 400, of the body as a whole."""
    error = refused(await client.post(path, content=body), 400)
    assert "the request body" in error["message"]
    assert error["param"] is None


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/x"])
@pytest.mark.parametrize("path", GOOD)
async def test_another_content_type_is_415(client, path, kind):
    """Only JSON is taken, and it is said so."""
    answer = await client.post(path, content=json.dumps(GOOD[path]), headers={"content-type": kind})
    error = refused(answer, 415)
    assert error["param"] == "content-type"
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", None]
)
async def test_json_by_any_name_is_taken(client, kind):
    """Parameters, upper case and no content type at all are fine."""
    headers = {"content-type": kind} if kind else {}
    answer = await client.post(CHAT, content=json.dumps(GOOD[CHAT]), headers=headers)
    assert answer.status_code == 200


async def test_a_compressed_body_is_415(client):
    """It is not unpacked behind the limit's back."""
    answer = await client.post(
        CHAT,
        content=gzip.compress(json.dumps(GOOD[CHAT]).encode()),
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert refused(answer, 415)["param"] == "content-encoding"


async def test_a_declared_size_is_refused_before_it_is_read(client, servers):
    """413 by content-length."""
    body = json.dumps({**GOOD[CHAT], "pad": "x" * MAX_BODY_BYTES})
    assert refused(await client.post(CHAT, content=body), 413)["code"] == "request_too_large"


async def test_an_undeclared_size_is_refused_as_it_comes(client):
    """413 for a chunked upload that passes the limit."""

    async def parts() -> AsyncIterator[bytes]:
        yield json.dumps(GOOD[CHAT]).encode()[:-1] + b',"pad":"'
        for _ in range(40):
            yield b"x" * 10_000

    answer = await client.post(CHAT, content=parts())
    assert refused(answer, 413)["code"] == "request_too_large"


async def test_a_body_at_the_limit_is_taken(client):
    """The limit is what is allowed, not the first that isn't; chunked bodies are fine."""
    body = json.dumps({**GOOD[CHAT], "pad": ""}).encode()
    body = body.replace(b'"pad": ""', b'"pad": "%b"' % (b"x" * (MAX_BODY_BYTES - len(body))))

    async def parts() -> AsyncIterator[bytes]:
        yield body[:1000]
        yield body[1000:]

    assert len(body) == MAX_BODY_BYTES
    assert (await client.post(CHAT, content=body)).status_code == 200
    assert (await client.post(CHAT, content=parts())).status_code == 200


@pytest.mark.parametrize("path", GOOD)
async def test_an_unknown_model_is_404(client, servers, path):
    """`param` is the model, and the message has its name."""
    answer = await client.post(path, json={**GOOD[path], "model": "gpt-9"})
    error = refused(answer, 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "'gpt-9'" in error["message"]


@pytest.mark.parametrize(
    ("path", "model", "purpose"),
    [
        (CHAT, "fake-embedding", "embeddings"),
        (COMPLETIONS, "fake-embedding", "embeddings"),
        (MESSAGES, "fake-embedding", "embeddings"),
        (EMBEDDINGS, "fake-chat", "chat and text completions"),
        (RERANK, "fake-chat", "chat and text completions"),
        (INFERENCE_RERANK, "fake-chat", "chat and text completions"),
    ],
)
async def test_a_model_of_another_kind_is_400(client, path, model, purpose):
    """The message says what the model is for."""
    answer = await client.post(path, json={**GOOD[path], "model": model})
    error = refused(answer, 400)
    assert (error["param"], error["code"]) == ("model", "model_not_supported")
    assert f"'{model}' is for {purpose}" in error["message"]


# -- any JSON at all ---------------------------------------------------------------------------

FIELDS = sorted({field for body in GOOD.values() for field in body} | {f for _, f, _, _ in WRONG})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["fake-chat", "fake-embedding", "vllm/fake-chat", "user", "float"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "include_usage"]), inner
        )
    ),
    max_leaves=6,
)
CHANGES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)


@given(path=st.sampled_from(sorted(GOOD)), changes=CHANGES, blank=st.booleans())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_json_makes_the_gateway_fail(client, path, changes, blank):
    """Whatever is in the fields, the answer is a success or a refusal, never a 5xx."""
    body = changes if blank else {**GOOD[path], **changes}
    answer = await client.post(path, content=json.dumps(body))
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code != 200:
        error_in(answer.content)
