"""Whatever a model server, or what stands in front of it, says or does: the caller gets OpenAI's
error, with the status that OpenAI would use, and OpenAI's SDK raises the class that fits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.support.expect import error_in, refused
from tests.support.gateway import free_port
from tests.support.inprocess import InProcessGateway
from tests.support.samples import names, sample
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.exchange import Behaviour

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "fake-chat", "messages": MESSAGES},
    "/v1/completions": {"model": "fake-chat", "prompt": "hi"},
    "/v1/messages": {"model": "fake-chat", "messages": MESSAGES, "max_tokens": 5},
    "/v1/messages/count_tokens": {"model": "fake-chat", "messages": MESSAGES},
    "/v1/embeddings": {"model": "fake-embedding", "input": "hi"},
    "/v1/rerank": {"model": "fake-embedding", "query": "a", "documents": ["b"]},
    "/tokenize": {"model": "fake-chat", "prompt": "hi"},
    "/detokenize": {"model": "fake-chat", "tokens": [1]},
}
MAX_ANSWER_BYTES = 1_000_000
EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    405: openai.APIStatusError,
    409: openai.ConflictError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


@dataclass
class Case:
    """A fault, the status it must become, and its code where that says something."""

    fault: Behaviour
    status: int
    code: str | None = None
    modes: tuple[str, ...] = ("json", "stream")


CASES = {
    "shape 1, 500": Case(faults.vllm_error(500), 500),
    "shape 1, 400": Case(faults.vllm_error(400, "n must be at least 1, got 0."), 400),
    "shape 1, 404": Case(
        faults.vllm_error(404, "The model `x` does not exist.", param="model"),
        404,
        "model_not_found",
    ),
    "shape 1, 409": Case(faults.vllm_error(409), 409),
    "shape 1, 422": Case(faults.vllm_error(422), 400),
    "shape 2, validation": Case(faults.validation_error(), 400),
    "shape 3, 401": Case(faults.unauthorized(), 502, "upstream_refused_credentials"),
    "shape 3, 403": Case(
        faults.answers_with(403, b'{"error":"Forbidden"}'), 502, "upstream_refused_credentials"
    ),
    "shape 4, 404": Case(faults.detail(404), 404, "model_not_supported"),
    "shape 4, 405": Case(faults.detail(405), 405),
    "shape 5, overloaded": Case(
        faults.error_event_first(), 503, "upstream_unavailable", ("stream",)
    ),
    "shape 5, crashed": Case(faults.error_event_first(500, "died"), 500, None, ("stream",)),
    "anthropic's, 500": Case(faults.anthropic_error(500), 500),
    "anthropic's, 400": Case(faults.anthropic_error(400), 400),
    "429": Case(faults.rate_limited(), 429, "rate_limit_exceeded"),
    "429 in html": Case(faults.html(429), 429, "rate_limit_exceeded"),
    "429 without words": Case(faults.answers_with(429), 429, "rate_limit_exceeded"),
    "503": Case(faults.unavailable(), 503, "upstream_unavailable"),
    "503 in html": Case(faults.html(503), 503, "upstream_unavailable"),
    "503 without words": Case(faults.answers_with(503), 503, "upstream_unavailable"),
    "502 in html": Case(faults.html(502), 502),
    "504 in html": Case(faults.html(504), 504),
    "404 in html": Case(faults.html(404), 502),
    "redirect": Case(faults.redirects_to_login(), 502, "upstream_redirected"),
    "204": Case(faults.answers_with(204), 502),
    "html": Case(faults.html(200), 502, "upstream_not_json"),
    "plain text": Case(
        faults.answers_with(200, b"upstream connect error", "text/plain"), 502, "upstream_not_json"
    ),
    "no content type": Case(faults.answers_with(200, b"{}", None), 502, "upstream_not_json"),
    "empty json": Case(faults.answers_with(200, b""), 502, "bad_upstream_answer"),
    "an array": Case(faults.answers_with(200, b"[]"), 502, "bad_upstream_answer"),
    "nested too deep": Case(
        faults.answers_with(200, b'{"a":' + b"[" * 200_000), 502, "bad_upstream_answer"
    ),
    "truncated json": Case(faults.truncated_json(), 502, "bad_upstream_answer", ("json",)),
    "eof mid body": Case(faults.closes_mid_body(), 502, "upstream_disconnected", ("json",)),
    "rst mid body": Case(faults.resets_mid_body(), 502, "upstream_disconnected", ("json",)),
    "eof before head": Case(faults.closes_before_head(), 502, "upstream_disconnected"),
    "rst before head": Case(faults.resets_before_head(), 502, "upstream_disconnected"),
    "not http": Case(faults.sends(b"SSH-2.0-OpenSSH_9.6\r\n"), 502, "bad_upstream_answer"),
    "too large": Case(faults.gigantic(2 * MAX_ANSWER_BYTES), 502, "bad_upstream_answer", ("json",)),
}
TABLE = [
    pytest.param(case, mode, id=f"{name}-{mode}")
    for name, case in CASES.items()
    for mode in case.modes
]


@pytest.fixture(scope="module")
async def servers():
    """A chat server and an embedding server."""
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm(["fake-embedding"], kind="embedding") as embedding,
    ):
        yield chat, embedding


@pytest.fixture(scope="module")
async def shared(servers):
    """One gateway for the whole table; what a test tells the servers is forgotten after it."""
    async with InProcessGateway(
        discover=[server.url for server in servers],
        models=["fake-chat", "fake-embedding"],
        limits={"max_answer_bytes": MAX_ANSWER_BYTES},
    ) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared, servers):
    yield shared
    for server in servers:
        server.reset()


@pytest.fixture(scope="module")
async def sdk(shared):
    async with openai.AsyncOpenAI(
        base_url=shared.base_url, api_key="none", max_retries=0
    ) as client:
        yield client


async def the_sdk_raises(sdk: openai.AsyncOpenAI, status: int, *, stream: bool) -> None:
    expected = EXCEPTIONS.get(status, openai.InternalServerError)
    with pytest.raises(expected) as raised:
        await sdk.chat.completions.create(**BODIES[CHAT], stream=stream)
    assert raised.value.status_code == status
    assert isinstance(raised.value.message, str)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("case", "mode"), TABLE)
async def test_every_fault_becomes_one_shape(gateway, servers, sdk, case, mode):
    """Status, four keys, a code that is a string or null, retry-after, and the SDK's class."""
    servers[0].behave(CHAT, case.fault)
    async with gateway.client() as client:
        answer = await client.post(CHAT, json={**BODIES[CHAT], "stream": mode == "stream"})
    error = refused(answer, case.status)
    if case.code is not None:
        assert error["code"] == case.code
    await the_sdk_raises(sdk, case.status, stream=mode == "stream")


@pytest.mark.parametrize(("case", "mode"), TABLE)
async def test_anthropic_s_clients_get_their_envelope(gateway, servers, case, mode):
    """On /v1/messages the same fields stand in Anthropic's envelope."""
    if case.code == "bad_upstream_answer" and case is CASES["too large"]:
        case = Case(too_large_message(), 502)
    servers[0].behave("/v1/messages", case.fault)
    body = {**BODIES["/v1/messages"], "stream": mode == "stream"}
    async with gateway.client() as client:
        answer = await client.post("/v1/messages", json=body)
    refused(answer, case.status)
    assert answer.json()["type"] == "error"
    assert " " not in answer.json()["error"]["type"]


def too_large_message() -> Behaviour:
    return faults.answers_with(200, b'{"content":"%b"}' % (b"x" * 2 * MAX_ANSWER_BYTES))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "name", ["shape 1, 500", "429", "redirect", "html", "rst before head", "not http", "an array"]
)
async def test_every_endpoint_has_the_same_errors(gateway, servers, path, name):
    """It is the relay that makes them, not an endpoint."""
    for server in servers:
        server.behave(path, CASES[name].fault)
    async with gateway.client() as client:
        refused(await client.post(path, json=BODIES[path]), CASES[name].status)


async def test_what_the_server_said_is_kept(gateway, servers):
    """The message is vLLM's own, so that nobody has to look into its log."""
    servers[0].behave(CHAT, faults.vllm_error(400, "guided decoding is off", param="guided"))
    async with gateway.client() as client:
        error = refused(await client.post(CHAT, json=BODIES[CHAT]), 400)
    assert error == {
        "message": "guided decoding is off",
        "type": "invalid_request_error",
        "param": "guided",
        "code": None,
    }


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/plain"])
async def test_retry_after_is_the_server_s_own(gateway, servers, status, content_type):
    """How long to wait is passed on from a 429 or a 503, whoever wrote its body."""
    servers[0].behave(CHAT, faults.answers_with(status, b"<p>", content_type, retry_after="17"))
    async with gateway.client() as client:
        answer = await client.post(CHAT, json=BODIES[CHAT])
    refused(answer, status)
    assert answer.headers["retry-after"] == "17"


# -- servers that are not there ----------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_connection_is_a_503(stream):
    """A server that doesn't listen is unavailable; its address stays inside."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    async with InProcessGateway(**only(url)) as gateway, gateway.client() as client:
        answer = await client.post(CHAT, json={**BODIES[CHAT], "stream": stream})
    error = refused(answer, 503)
    assert error["code"] == "upstream_unreachable"
    assert str(port) not in error["message"]
    assert "127.0.0.1" not in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_host_is_a_503(stream):
    """A name that DNS doesn't know is unavailable too."""
    url = "http://vllm.invalid:8000/v1"
    async with InProcessGateway(**only(url)) as gateway, gateway.client() as client:
        answer = await client.post(CHAT, json={**BODIES[CHAT], "stream": stream})
    error = refused(answer, 503)
    assert error["code"] == "upstream_unreachable"
    assert "vllm.invalid" not in error["message"]


async def test_a_server_that_hangs_up_on_accept_is_no_fault_of_the_gateway():
    """A port that accepts and resets at once, as a proxy without a backend does."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with InProcessGateway(**only(url)) as gateway, gateway.client() as client:
        for _ in range(20):
            answer = await client.post(CHAT, json=BODIES[CHAT])
            assert answer.status_code in (502, 503), answer.text
            refused(answer, answer.status_code)
    listener.close()


def only(url: str) -> dict[str, Any]:
    """Settings in which the model is said to be there, so that nothing has to be discovered."""
    return {"configured": [{"id": "fake-chat", "kind": "chat", "backends": [{"url": url}]}]}


# -- what a real vLLM was recorded to say ----------------------------------------------------------

RECORDED = [
    name
    for name in names()
    if sample(name).status >= 400 and name.startswith(("err-", "emb-", "messages-", "flags-"))
]
CRASHES = [name for name in names() if name.startswith(("overload-", "crash-", "shutdown-"))]


@pytest.mark.parametrize("name", [*RECORDED, *CRASHES])
async def test_recorded_errors_get_the_shape(gateway, servers, sdk, name):
    """Every error that was recorded from vLLM 0.32 becomes OpenAI's."""
    recorded = sample(name)
    path = recorded.path if recorded.path in BODIES else CHAT
    stream = "stream" in name
    for server in servers:
        server.behave(path, faults.recorded(name))
    async with gateway.client() as client:
        answer = await client.post(path, json={**BODIES[path], "stream": stream})
    if name == "crash-worker-killed-inflight-stream":
        error_in(answer.text.rstrip("\n").rpartition("data: ")[2])
        return
    expected = {401: 502, 200: 503}.get(recorded.status, recorded.status)
    refused(answer, expected)
    if path == CHAT:
        await the_sdk_raises(sdk, expected, stream=stream)


# -- the gateway's own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/", 404, "unknown_url"),
        ("PUT", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/embeddings", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/inspect/routes?api_filter=v9", 400, None),
        ("GET", "/v1/providers/nobody", 404, None),
        ("GET", "/v1/models/nothing", 404, "model_not_found"),
        ("GET", "/v1/models/a/b/c", 404, "model_not_found"),
    ],
)
async def test_the_framework_s_own_errors_have_it_too(gateway, method, path, status, code):
    """Unknown URLs, wrong methods and wrong query parameters."""
    async with gateway.client() as client:
        answer = await client.request(method, path)
    error = refused(answer, status)
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_wrong_query_parameter_is_named(gateway):
    """`param` tells which one."""
    async with gateway.client() as client:
        answer = await client.get("/v1/inspect/routes?api_filter=v9")
    assert refused(answer, 400)["param"] == "api_filter"


async def test_a_fault_in_an_ordinary_handler_is_one_too(gateway, monkeypatch, caplog):
    """Litestar's own answer to it never shows, and the log has the cause."""

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(gateway.application.stateful.files, "list", broken)
    async with gateway.client() as client:
        answer = await client.get("/v1/files")
    error = refused(answer, 500)
    assert answer.headers["x-request-id"] in error["message"]
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


async def test_a_fault_of_the_gateway_is_a_500_without_detail(gateway, monkeypatch, caplog):
    """What nobody foresaw is logged with its cause, and told with the id to find it by."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(gateway.application.catalog, "find", broken)
    async with gateway.client() as client:
        answer = await client.post(CHAT, json=BODIES[CHAT])
    error = refused(answer, 500)
    assert "secret detail" not in answer.text
    assert answer.headers["x-request-id"] in error["message"]
    assert "secret detail" in caplog.text
