"""The benchmark's own programs: does the upstream speak like vLLM, does the load check answers?"""

import base64
import json
import socket
import struct
import subprocess
import time

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.benchmarks.peers import CHAT, EMBED, upstream
from tests.benchmarks.tools import HERE, choose_cores, compiler, run_load, usage

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler (cc)")

CORES = choose_cores()
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with upstream(CORES.tools, tmp_path_factory.mktemp("bench")) as running:
        yield running


@pytest.fixture(scope="module")
def chat(up):
    with httpx.Client(
        base_url=f"http://127.0.0.1:{up.chat}", trust_env=False, timeout=60
    ) as client:
        yield client


@pytest.fixture(scope="module")
def embed(up):
    with httpx.Client(
        base_url=f"http://127.0.0.1:{up.embed}", trust_env=False, timeout=60
    ) as client:
        yield client


def chat_body(**more):
    return {"model": CHAT, "messages": MESSAGES} | more


def events(answer):
    """The payloads of a stream."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = answer.text.split("\n\n")
    assert found.pop() == ""
    assert all(event.startswith("data: ") for event in found)
    return [event.removeprefix("data: ") for event in found]


@pytest.mark.parametrize("name", ["upstream", "load"])
def test_programs_compile_without_warnings(name, tmp_path):
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / name]
    subprocess.run([*command, HERE / f"{name}.c"], check=True)


def test_each_server_lists_its_model(chat, embed):
    for client, name in ((chat, CHAT), (embed, EMBED)):
        models = client.get("/v1/models").json()["data"]
        assert [model["id"] for model in models] == [name]
        assert models[0]["owned_by"] == "vllm"


def test_kinds_can_be_found_out(chat, embed):
    """The right server answers 405 or 400, the wrong one 404, as vLLM does."""
    for right, wrong, path in (
        (chat, embed, "/v1/chat/completions"),
        (embed, chat, "/v1/embeddings"),
    ):
        got = right.get(path)
        assert (got.status_code, got.json()) == (405, {"detail": "Method Not Allowed"})
        assert got.headers["allow"] == "POST"
        assert right.post(path, json={}).status_code == 400
        for answer in (wrong.get(path), wrong.post(path, json={})):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_json_has_the_keys_of_vllm_in_order(chat):
    answer = chat.post("/v1/chat/completions", json=chat_body())
    assert answer.status_code == 200
    assert 600 <= int(answer.headers["content-length"]) == len(answer.content) <= 730
    body = answer.json()
    assert list(body) == [
        *("id", "object", "created", "model", "choices", "service_tier", "system_fingerprint"),
        *("usage", "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params"),
        *("ec_transfer_params", "metrics"),
    ]
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"][0]["message"]["content"] == "The capital of France is Paris."
    assert body["usage"]["total_tokens"] == 45


def test_request_id_becomes_the_id(chat):
    answer = chat.post(
        "/v1/chat/completions", json=chat_body(), headers={"x-request-id": "my-req-123"}
    )
    assert answer.json()["id"] == "chatcmpl-my-req-123"


def test_unknown_model_is_404(chat):
    answer = chat.post("/v1/chat/completions", json=chat_body(model="nope"))
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "NotFoundError"


def test_stream_without_usage(chat):
    *chunks, last = events(chat.post("/v1/chat/completions", json=chat_body(stream=True)))
    assert last == "[DONE]"
    assert len(chunks) == 128
    assert all(200 <= len(chunk) <= 290 for chunk in chunks)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parsed[-1]["choices"][0]["finish_reason"] == "length"
    assert "system_fingerprint" in parsed[-1]
    assert len({chunk["id"] for chunk in parsed}) == 1
    assert not any("usage" in chunk for chunk in parsed)


def test_stream_with_usage(chat):
    body = chat_body(stream=True, stream_options={"include_usage": True})
    *chunks, usage_chunk, last = events(chat.post("/v1/chat/completions", json=body))
    assert (len(chunks), last) == (128, "[DONE]")
    parsed = json.loads(usage_chunk)
    assert parsed["choices"] == []
    assert parsed["usage"]["total_tokens"] == 164


def test_each_event_is_one_http_chunk(up):
    body = json.dumps(chat_body(stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    raw = b""
    with socket.create_connection(("127.0.0.1", up.chat), timeout=60) as connection:
        connection.sendall(head + body)
        while not raw.endswith(b"\r\n0\r\n\r\n"):
            block = connection.recv(65536)
            assert block, raw
            raw += block
    rest = raw.partition(b"\r\n\r\n")[2]
    sizes = []
    while size := int(rest.partition(b"\r\n")[0], 16):
        event = rest.partition(b"\r\n")[2][:size]
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        sizes.append(size)
        rest = rest.partition(b"\r\n")[2][size + 2 :]
    assert len(sizes) == 129  # [DONE] included


def test_seed_paces_a_stream(chat):
    before = time.monotonic()
    answer = chat.post("/v1/chat/completions", json=chat_body(stream=True, seed=2))
    assert len(events(answer)) == 129
    assert time.monotonic() - before >= 127 * 0.002


def test_embeddings_of_32_inputs(embed):
    body = {"model": EMBED, "input": ["a passage"] * 32}
    answer = embed.post("/v1/embeddings", json=body)
    assert 400_000 <= len(answer.content) <= 720_000
    parsed = answer.json()
    assert [item["index"] for item in parsed["data"]] == list(range(32))
    assert all(len(item["embedding"]) == 1024 for item in parsed["data"])
    assert list(parsed) == ["id", "object", "created", "model", "data", "usage"]
    assert parsed["usage"]["total_tokens"] == 9 * 32


@pytest.mark.parametrize(
    ("given", "count"),
    [("x", 1), (["x"], 1), (["a, b", 'c"]'], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
def test_embeddings_of_other_inputs(embed, given, count):
    data = embed.post("/v1/embeddings", json={"model": EMBED, "input": given}).json()["data"]
    assert len(data) == count


def test_base64_and_floats_are_the_same_numbers(embed):
    body = {"model": EMBED, "input": "x"}
    floats = embed.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    text = embed.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    packed = base64.b64decode(text.json()["data"][0]["embedding"])
    assert list(struct.unpack("<1024f", packed)) == floats


def test_chunked_request_bodies_are_understood(chat):
    text = json.dumps(chat_body()).encode()
    answer = chat.post("/v1/chat/completions", content=iter([text[:20], text[20:]]))
    assert answer.status_code == 200


def test_sink_counts_spans_by_kind(up):
    request = ExportTraceServiceRequest()
    for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_CLIENT):
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.name = "chat bench-chat"
        span.trace_id, span.span_id, span.kind = b"t" * 16, b"s" * 8, kind
        span.start_time_unix_nano = 1
        span.attributes.add(key="gen_ai.request.model").value.string_value = CHAT
    before = up.sink_stats()
    for path in ("/v1/traces", "/v1/metrics"):
        answer = httpx.post(
            f"http://127.0.0.1:{up.sink}{path}", content=request.SerializeToString()
        )
        assert answer.status_code == 200
    after = up.sink_stats()
    names = ("trace_posts", "metric_posts", "spans", "server_spans", "client_spans", "undecoded")
    assert [after[name] - before[name] for name in names] == [1, 1, 3, 1, 2, 0]


def load(up, *more, port=None):
    options = ["--port", port or up.chat, "--path", "/v1/chat/completions", "--seconds", "0.3"]
    return run_load(CORES.tools, [str(part) for part in (*options, *more)], patience=20)


@pytest.mark.alone
def test_load_measures_json(up):
    body = json.dumps(chat_body())
    before = up.stats()
    found = load(
        up, "--connections", 4, "--body", body, "--traceparent", "--expect", '"finish_reason"'
    )
    after = up.stats()
    assert found["errors"] == 0
    assert found["rate"] > 1000
    assert 0 < found["latency_p50_us"] <= found["latency_p99_us"]
    assert after["chat"] - before["chat"] == found["sent_total"] == found["done_total"]
    assert after["sampled"] - before["sampled"] == found["sent_total"]


def test_load_measures_streams(up):
    body = json.dumps(chat_body(stream=True))
    wanted = ("--stream", "--min-events", 128, "--max-events", 128)
    found = load(up, "--connections", 4, "--body", body, *wanted)
    assert found["errors"] == 0
    assert found["events_total"] == 128 * found["done_total"] > 0
    assert 0 < found["first_p50_us"] <= found["first_p99_us"]


def test_load_counts_wrong_answers(up):
    body = json.dumps(chat_body())
    for wrong, why in (
        (("--body", json.dumps(chat_body(model="nope"))), "not 200"),
        (("--body", body, "--min-bytes", 1000), "a body of unexpected size"),
        (("--body", body, "--expect", "Lyon"), "the expected text is missing"),
        (("--body", json.dumps(chat_body(stream=True)), "--stream", "--min-events", 129), "events"),
    ):
        found = load(up, *wrong)
        assert found["done_total"] == 0
        assert found["errors"] == found["sent_total"] > 0
        assert why in found["first_error"]


def test_usage_of_a_process(up):
    before = usage(up.process.pid)
    load(up, "--connections", 2, "--body", json.dumps(chat_body()))
    after = usage(up.process.pid)
    assert after.cpu_since(before) > 0
    assert 0.5 < after.rss_mb < 100
