"""Batches through OpenAI's own client, under both profiles."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from tests.support.batches import CHAT, chat_line, finished, jsonl, line, made, results
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

ALIAS = "gpt-4o-mini"


@pytest.fixture(scope="module")
async def servers():
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm(["fake-embedding"], kind="embedding") as embedding,
    ):
        yield chat, embedding


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(request: pytest.FixtureRequest, servers, tmp_path_factory):
    chat, embedding = servers
    backend = {"url": chat.url, "model": "fake-chat"}
    async with InProcessGateway(
        data_dir=str(tmp_path_factory.mktemp("batches")),
        server={"profile": request.param},
        discover=[chat.url, embedding.url],
        models=["fake-chat", "fake-embedding"],
        configured=[{"id": ALIAS, "backends": [backend], "kind": "chat"}],
        batches={"max_lines": 50, "max_file_bytes": 20_000, "max_attempts": 2},
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway, servers):
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
    for server in servers:
        server.reset()


@pytest.fixture
async def http(gateway: InProcessGateway):
    async with gateway.client() as http:
        yield http


def body_of(gateway: InProcessGateway, result: dict[str, Any]) -> dict[str, Any]:
    """The body of a result; under LlamaStack's profile it is a string of JSON."""
    body = result["response"]["body"]
    if gateway.settings.server.profile == "llamastack":
        assert isinstance(body, str)
        return json.loads(body)
    assert isinstance(body, dict)
    return body


async def test_a_batch_of_chats(gateway, client: AsyncOpenAI):
    """From validating to completed: one line of output for each of input, in their order."""
    names = [f"request-{number}" for number in range(20)]
    batch = await made(client, map(chat_line, names), metadata={"a": "b"})
    assert (batch.object, batch.status, batch.endpoint) == ("batch", "validating", CHAT)
    assert batch.expires_at == batch.created_at + 24 * 3600
    assert batch.id.startswith("batch_")
    batch = await finished(client, batch)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (20, 20, 0)
    assert (batch.model, batch.metadata) == ("fake-chat", {"a": "b"})
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    found = await results(client, batch.output_file_id)
    assert [one["custom_id"] for one in found] == names
    assert len({one["id"] for one in found}) == 20
    usage = [0, 0]
    for one in found:
        assert list(one) == ["id", "custom_id", "response", "error"]
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        assert one["response"]["request_id"].startswith("req_")
        answer = ChatCompletion.model_validate(body_of(gateway, one))
        assert answer.choices[0].message.content == "The capital of France is Paris."
        usage[0] += answer.usage.prompt_tokens
        usage[1] += answer.usage.completion_tokens
    assert [batch.usage.input_tokens, batch.usage.output_tokens] == usage
    assert batch.usage.total_tokens == sum(usage)
    file = await client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_an_answer_names_the_model_as_it_was_asked_for(gateway, client: AsyncOpenAI):
    """An alias, a provider's name, the server's own: each line gets its own back."""
    asked = {"a": ALIAS, "b": "vllm/fake-chat", "c": "fake-chat"}
    batch = await finished(client, await made(client, [chat_line(*one) for one in asked.items()]))
    assert batch.model is None
    found = await results(client, batch.output_file_id)
    assert {one["custom_id"]: body_of(gateway, one)["model"] for one in found} == asked
    for one in found:
        assert "function_call" not in body_of(gateway, one)["choices"][0]["message"]


async def test_a_batch_of_completions(gateway, client: AsyncOpenAI):
    """The paths of LlamaStack's older clients mean the same."""
    body = {"model": "fake-chat", "prompt": "x"}
    lines = [line("a", "/v1/openai/v1/completions", body), line("b", "/v1/completions", body)]
    batch = await made(client, lines, endpoint="/v1/openai/v1/completions")
    assert batch.endpoint == "/v1/completions"
    batch = await finished(client, batch)
    found = await results(client, batch.output_file_id)
    assert [body_of(gateway, one)["object"] for one in found] == ["text_completion"] * 2


async def test_a_batch_of_responses(gateway, client: AsyncOpenAI):
    """Each line makes a response, stored as any other; its tokens count."""
    body = {"model": "fake-chat", "input": "What is the capital of France?"}
    lines = [line("a", "/v1/responses", body), line("b", "/v1/responses", {**body, "store": False})]
    batch = await made(client, lines, endpoint="/v1/responses")
    batch = await finished(client, batch)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    first, second = [body_of(gateway, one) for one in await results(client, batch.output_file_id)]
    stored = await client.responses.retrieve(first["id"])
    assert stored.output_text == "The capital of France is Paris."
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(second["id"])
    assert batch.usage.output_tokens == 2 * stored.usage.output_tokens


async def test_a_batch_of_embeddings(gateway, client: AsyncOpenAI):
    """As numbers or base64, as each line asks; other encodings are that line's error."""
    endpoint = "/v1/embeddings"
    lines = [
        line(str(encoding), endpoint, {"model": "fake-embedding", "input": "gulls", **given})
        for encoding, given in {
            "none": {},
            "float": {"encoding_format": "float"},
            "base64": {"encoding_format": "base64"},
            "bytes": {"encoding_format": "bytes"},
        }.items()
    ]
    batch = await finished(client, await made(client, lines, endpoint=endpoint))
    found = {
        one["custom_id"]: body_of(gateway, one)["data"][0]["embedding"]
        for one in await results(client, batch.output_file_id)
    }
    assert found["none"] == found["float"]
    assert len(found["float"]) == 384
    assert len(base64.b64decode(found["base64"])) == 384 * 4
    [wrong] = await results(client, batch.error_file_id)
    assert wrong["custom_id"] == "bytes"
    assert body_of(gateway, wrong)["error"]["param"] == "encoding_format"
    assert batch.usage.output_tokens == 0
    assert batch.usage.input_tokens > 0
    CreateEmbeddingResponse.model_validate(
        body_of(gateway, (await results(client, batch.output_file_id))[0])
    )


async def test_what_a_server_refuses_is_in_the_error_file(gateway, client: AsyncOpenAI):
    """With the response and its status, as OpenAI has it; the others are in the output file."""
    lines = [chat_line("good"), chat_line("bad", temperature=-1), chat_line("odd", messages=[])]
    batch = await finished(client, await made(client, lines))
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    assert [one["custom_id"] for one in await results(client, batch.output_file_id)] == ["good"]
    wrong = await results(client, batch.error_file_id)
    assert [one["custom_id"] for one in wrong] == ["bad", "odd"]
    for one in wrong:
        assert (one["response"]["status_code"], one["error"]) == (400, None)
        error = body_of(gateway, one)["error"]
        assert error["type"] == "invalid_request_error"


async def test_a_passing_failure_is_tried_again(servers, client: AsyncOpenAI):
    """An overload of a moment costs no line."""
    chat, _ = servers
    chat.behave(CHAT, faults.unavailable(), times=1)
    batch = await finished(client, await made(client, [chat_line("a"), chat_line("b")]))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 0)


async def test_a_lasting_failure_is_that_line_s(gateway, servers, client: AsyncOpenAI):
    """After `batches.max_attempts` it is in the error file with the server's status."""
    chat, _ = servers
    before = len(chat.requests_to(CHAT))

    async def fails_for_b(exchange):
        asked = exchange.request.json["messages"][0]["content"]
        if asked == "b":
            await faults.vllm_error(500, "CUDA error")(exchange)
        else:
            await exchange.honestly()

    chat.behave(CHAT, fails_for_b)
    batch = await finished(client, await made(client, map(chat_line, "abc")))
    assert batch.status == "completed"
    assert [one["custom_id"] for one in await results(client, batch.output_file_id)] == ["a", "c"]
    [wrong] = await results(client, batch.error_file_id)
    assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("b", 500)
    assert len(chat.requests_to(CHAT)) - before == 4


LINE = chat_line("a")


@pytest.mark.parametrize(
    ("content", "code", "param", "number"),
    [
        (b"", "empty_file", None, None),
        (b"\n \r\n\n", "empty_file", None, None),
        (jsonl([LINE]) + b"{oops", "invalid_json_line", None, 2),
        (jsonl([LINE]) + b'{"custom_id": "\xff"}', "invalid_json_line", None, 2),
        (rb'{"custom_id": "\ud800"}', "invalid_json_line", None, 1),
        (b'{"body":' + b"[" * 5000, "invalid_json_line", None, 1),
        (b"\n[]\n", "invalid_request", None, 2),
        (jsonl([LINE, LINE]), "duplicate_custom_id", "custom_id", 2),
        *(
            (
                jsonl([{key: value for key, value in LINE.items() if key != name}]),
                "missing_required_parameter",
                name,
                1,
            )
            for name in LINE
        ),
        (jsonl([LINE | {"custom_id": 7}]), "invalid_request", "custom_id", 1),
        (jsonl([LINE | {"custom_id": ""}]), "invalid_request", "custom_id", 1),
        (jsonl([LINE | {"custom_id": "x" * 513}]), "invalid_request", "custom_id", 1),
        (jsonl([LINE | {"method": "GET"}]), "invalid_method", "method", 1),
        (jsonl([LINE | {"url": "/v1/embeddings"}]), "invalid_url", "url", 1),
        (jsonl([LINE | {"url": None}]), "invalid_request", "url", 1),
        (jsonl([LINE | {"body": "x"}]), "invalid_request", "body", 1),
        (jsonl([LINE | {"body": {}}]), "missing_required_parameter", "body.model", 1),
        (jsonl([LINE | {"body": {"model": []}}]), "invalid_request", "body.model", 1),
        (jsonl([chat_line("a", stream=True)]), "streaming_unsupported", "body.stream", 1),
        (jsonl([chat_line("a", "nobody")]), "model_not_found", "body.model", 1),
        (jsonl([chat_line("a", "fake-embedding")]), "model_not_supported", "body.model", 1),
        (jsonl(chat_line(str(one)) for one in range(51)), "too_many_tasks", None, 51),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_wrong_file_fails_the_batch(servers, client, content, code, param, number):
    """Before any line is done, with OpenAI's code, the parameter and the line."""
    before = [len(server.requests_to(CHAT)) for server in servers]
    batch = await finished(client, await made(client, content))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at >= batch.created_at
    error = batch.errors.data[-1]
    assert (batch.errors.object, error.code, error.param) == ("list", code, param)
    assert error.line == number
    assert error.message
    assert [len(server.requests_to(CHAT)) for server in servers] == before


async def test_every_wrong_line_is_told_up_to_a_bound(client: AsyncOpenAI):
    """All that is wrong is told at once."""
    batch = await finished(client, await made(client, b"{oops\n" * 30))
    assert [error.line for error in batch.errors.data] == [*range(1, 31)]


async def test_odd_line_ends_are_read(client: AsyncOpenAI):
    """A byte order mark, CRLF, blank lines, and no end of line at the end."""
    content = b"\xef\xbb\xbf" + jsonl([chat_line("a")]).replace(b"\n", b"\r\n\r\n")
    content += jsonl([chat_line("ü😀")]).strip()
    batch = await finished(client, await made(client, content))
    found = await results(client, batch.output_file_id)
    assert [one["custom_id"] for one in found] == ["a", "ü😀"]


async def test_what_a_batch_can_t_be_made_of(client: AsyncOpenAI, http):
    """The file, its purpose, the endpoint, the window: each is named."""
    file = await client.files.create(file=b"{}", purpose="batch")
    other = await client.files.create(file=b"{}", purpose="user_data")
    large = await client.files.create(file=b"x" * 20_001, purpose="batch")
    right = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    missing = f"file-{'0' * 32}"
    for status, param, wrong in (
        (404, "input_file_id", {"input_file_id": missing}),
        (400, "input_file_id", {"input_file_id": other.id}),
        (400, "input_file_id", {"input_file_id": large.id}),
        (400, "endpoint", {"endpoint": "/v1/nope"}),
        (400, "endpoint", {"endpoint": "/v1/moderations"}),
        (400, "completion_window", {"completion_window": "48h"}),
        (400, "metadata.a", {"metadata": {"a": 1}}),
        (400, "output_expires_after.seconds", {"output_expires_after": {"anchor": "created_at"}}),
    ):
        answer = await http.post("/v1/batches", json=right | wrong)
        error = refused(answer, status)
        assert error["param"] == param, wrong
    for name in right:
        answer = await http.post("/v1/batches", json={**right, name: None})
        assert refused(answer, 400)["param"] == name


async def test_the_same_key_is_the_same_batch(client: AsyncOpenAI, http):
    """Given in the body or as a header; with another request it is a conflict that no retry
    mends."""
    file = await client.files.create(file=jsonl([chat_line("a")]), purpose="batch")
    wanted = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    body = {**wanted, "idempotency_key": f"key-{file.id}"}
    first = (await http.post("/v1/batches", json=body)).json()
    assert (await http.post("/v1/batches", json=body)).json()["id"] == first["id"]
    headers = {"idempotency-key": f"key-{file.id}"}
    again = await http.post("/v1/batches", json=wanted, headers=headers)
    assert again.json()["id"] == first["id"]
    assert (await http.post("/v1/batches", json=wanted)).json()["id"] != first["id"]
    other = await http.post("/v1/batches", json=body | {"metadata": {"a": "b"}})
    assert refused(other, 409)["type"] == "conflict_error"
    assert other.headers["x-should-retry"] == "false"
    both = await http.post("/v1/batches", json=body, headers={"idempotency-key": "another"})
    assert refused(both, 400)["param"] == "idempotency_key"


async def test_batches_are_listed_page_by_page(gateway, client: AsyncOpenAI, http):
    """The newest first; an empty list has null for its ends in both profiles."""
    empty = (await http.get("/v1/batches?after=nothing&limit=1")).json()
    assert set(empty) == {"object", "data", "first_id", "last_id", "has_more"}
    ids = [(await made(client, [chat_line("a")])).id for _ in range(3)]
    found = [batch.id async for batch in client.batches.list(limit=2)]
    assert found[:3] == ids[::-1]
    page = await client.batches.list(limit=2, after=ids[2])
    assert [batch.id for batch in page.data] == [ids[1], ids[0]]
    refused(await http.get("/v1/batches?limit=101"), 400)


async def test_a_batch_in_work_says_when_to_look_again(servers, client: AsyncOpenAI, http):
    """`openai-poll-after-ms` is there until the batch is over."""
    chat, _ = servers
    chat.behave(CHAT, faults.slow(before_head=0.3))
    batch = await made(client, [chat_line("a")])
    shown = await http.get(f"/v1/openai/v1/batches/{batch.id}")
    assert int(shown.headers["openai-poll-after-ms"]) > 0
    await finished(client, batch)
    over = await http.get(f"/v1/batches/{batch.id}")
    assert "openai-poll-after-ms" not in over.headers


@pytest.mark.alone
async def test_cancelling_keeps_what_is_done(servers, client: AsyncOpenAI):
    """Cancelling at once, cancelled within a second or so; the call at hand is given up."""
    chat, _ = servers

    async def hangs_from_c_on(exchange):
        if exchange.request.json["messages"][0]["content"] in "ab":
            await exchange.honestly()
        else:
            await exchange.hang()

    chat.behave(CHAT, hangs_from_c_on)
    batch = await made(client, map(chat_line, "abcdef"))
    while batch.request_counts.completed < 2:
        batch = await client.batches.retrieve(batch.id)
    began = time.monotonic()
    batch = await client.batches.cancel(batch.id)
    assert batch.status in ("cancelling", "cancelled")
    assert batch.cancelling_at
    assert (await client.batches.cancel(batch.id)).id == batch.id
    batch = await finished(client, batch)
    assert time.monotonic() - began < 2
    assert (batch.status, batch.error_file_id) == ("cancelled", None)
    assert batch.cancelled_at >= batch.cancelling_at
    assert [one["custom_id"] for one in await results(client, batch.output_file_id)] == ["a", "b"]
    await chat.until_connections(0, within=20)


async def test_what_is_over_can_t_be_cancelled(client: AsyncOpenAI):
    """A conflict, which the client doesn't retry."""
    batch = await finished(client, await made(client, [chat_line("a")]))
    with pytest.raises(openai.ConflictError) as caught:
        await client.with_options(max_retries=2).batches.cancel(batch.id)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "'completed'" in caught.value.message


async def test_an_unknown_batch(client: AsyncOpenAI):
    """404, whatever the id."""
    for batch_id in ("batch_" + "0" * 32, "x", "batch_\x00"):
        for call in (client.batches.retrieve, client.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await call(batch_id)


async def test_files_that_expire(client: AsyncOpenAI):
    """`output_expires_after` counts from when the file was made."""
    expires = {"anchor": "created_at", "seconds": 3600}
    batch = await made(client, [chat_line("a")], output_expires_after=expires)
    batch = await finished(client, batch)
    file = await client.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 3600


@pytest.mark.one_process
async def test_a_batch_is_a_trace_that_links_to_its_request(gateway, client: AsyncOpenAI):
    """Its calls are children of its span; metrics count its lines."""
    labels = {"understudy_batch_line_outcome": "completed"}
    name = "understudy_batch_line_duration_seconds_count"
    before = gateway.metric(name, **labels)
    batch = await finished(client, await made(client, map(chat_line, "ab")))
    assert gateway.metric(name, **labels) == before + 2
    assert gateway.metric("understudy_batch_active") >= 0

    def found() -> list[Any]:
        return [
            one
            for one in gateway.spans()
            if one.name == "batch" and one.attributes["understudy.batch.id"] == batch.id
        ]

    await until(found, "the batch's span")
    [span] = found()
    assert span.attributes["understudy.batch.status"] == "completed"
    calls = [
        one
        for one in gateway.spans()
        if one.name == "chat fake-chat" and one.context.trace_id == span.context.trace_id
    ]
    assert [call.parent.span_id for call in calls] == [span.context.span_id] * 2
    requests = [one for one in gateway.spans() if one.name == "POST /v1/batches"]
    assert span.links[0].context.span_id in {one.context.span_id for one in requests}


@pytest.mark.one_process
async def test_an_input_file_that_is_deleted_fails_the_batch(gateway, servers, client: AsyncOpenAI):
    """With an error that says so."""
    batch_file = await client.files.create(file=jsonl([chat_line("a")]), purpose="batch")
    chat, _ = servers
    chat.behave(CHAT, faults.slow(before_head=0.5))
    busy = [await made(client, [chat_line("a")]) for _ in range(2)]  # both workers
    batch = await client.batches.create(
        input_file_id=batch_file.id, endpoint=CHAT, completion_window="24h"
    )
    await client.files.delete(batch_file.id)
    batch = await finished(client, batch)
    assert batch.status == "failed"
    assert batch.errors.data[0].code == "input_file_not_found"
    for one in busy:
        assert (await finished(client, one)).status == "completed"
