"""A wrong request for a response is refused before any model server sees it, with the status that
OpenAI gives and the parameter's name as OpenAI writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

CREATE = "/v1/responses"
COUNT = "/v1/responses/input_tokens"
COMPACT = "/v1/responses/compact"
ALL = (CREATE, COUNT, COMPACT)
BOTH = (CREATE, COUNT)
GOOD = {"model": "fake-chat", "input": "hi"}
ABSENT = object()
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "x"}
PNG = "data:image/png;base64,iVBORw0KGgo="


def message(*content: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": list(content)}]


def image(**fields: Any) -> list[dict[str, Any]]:
    return message({"type": "input_text", "text": "a"}, {"type": "input_image", **fields})


def file(**fields: Any) -> list[dict[str, Any]]:
    return message({"type": "input_file", **fields})


# Paths, the field, its value, the parameter that is named.
WRONG: list[tuple[tuple[str, ...], str, Any, str]] = [
    (ALL, "model", ABSENT, "model"),
    (ALL, "model", 5, "model"),
    (ALL, "model", None, "model"),
    (ALL, "model", "", "model"),
    (ALL, "model", ["fake-chat"], "model"),
    (ALL, "input", ABSENT, "input"),
    (ALL, "input", None, "input"),
    (ALL, "input", 5, "input"),
    (ALL, "input", {}, "input"),
    (ALL, "input", [], "input"),
    (ALL, "input", ["hi"], "input[0]"),
    (ALL, "input", [None], "input[0]"),
    (ALL, "input", [{}], "input[0].type"),
    (ALL, "input", [{"type": "nope"}], "input[0].type"),
    (ALL, "input", [{"type": 5}], "input[0].type"),
    (ALL, "input", [{"type": ["message"]}], "input[0].type"),
    (ALL, "input", [{"role": "user"}], "input[0].content"),
    (ALL, "input", [{"role": "alien", "content": "a"}], "input[0].role"),
    (ALL, "input", [{"role": "user", "content": None}], "input[0].content"),
    (ALL, "input", [{"role": "user", "content": {}}], "input[0].content"),
    (ALL, "input", message("a"), "input[0].content[0]"),
    (ALL, "input", message({"type": "input_text"}), "input[0].content[0].text"),
    (ALL, "input", message({"type": "input_text", "text": 1}), "input[0].content[0].text"),
    (ALL, "input", message({"type": "nope"}), "input[0].content[0].type"),
    (ALL, "input", message({"text": "a"}), "input[0].content[0].type"),
    (ALL, "input", image(image_url=5), "input[0].content[1].image_url"),
    (ALL, "input", image(image_url={"url": PNG}), "input[0].content[1].image_url"),
    (ALL, "input", image(), "input[0].content[1].image_url"),
    (ALL, "input", image(image_url="data:image/png,%00"), "input[0].content[1].image_url"),
    (ALL, "input", image(image_url="data:image/png;base64,!"), "input[0].content[1].image_url"),
    (ALL, "input", image(image_url="data:image/png;base64,QQ=="), "input[0].content[1].image_url"),
    (ALL, "input", image(image_url=PNG, detail="huge"), "input[0].content[1].detail"),
    (ALL, "input", image(file_id="file-nope"), "input[0].content[1].file_id"),
    (ALL, "input", image(file_id="\x00"), "input[0].content[1].file_id"),
    (ALL, "input", file(), "input[0].content[0].file_id"),
    (ALL, "input", file(file_id="file-nope"), "input[0].content[0].file_id"),
    (ALL, "input", file(file_data="!"), "input[0].content[0].file_data"),
    (ALL, "input", file(file_data=5), "input[0].content[0].file_data"),
    (ALL, "input", [*message(), CALL, {**OUTPUT, "output": [{"type": "input_image"}]}],
     "input[2].output[0].image_url"),
    (ALL, "input", [{"role": "user", "content": "a", "id": "m"}] * 2, "input"),
    (ALL, "input", [{"role": "user", "content": "a", "id": 5}], "input[0].id"),
    (ALL, "input", [{"role": "user", "content": "a", "id": ""}], "input[0].id"),
    (ALL, "input", [{**CALL, "arguments": {}}], "input[0].arguments"),
    (ALL, "input", [{**CALL, "name": None}], "input[0].name"),
    (ALL, "input", [CALL], "input"),
    (ALL, "input", [OUTPUT], "input"),
    (ALL, "input", [{"type": "item_reference"}], "input[0].id"),
    (ALL, "input", [{"type": "item_reference", "id": "msg_nope"}], "input[0].id"),
    (ALL, "input", [{"type": "item_reference", "id": "\x00"}], "input[0].id"),
    (
        *(ALL, "input", [{"type": "compaction", "encrypted_content": "x"}]),
        "input[0].encrypted_content",
    ),
    (ALL, "input", [{"type": "reasoning", "summary": "x"}], "input[0].summary"),
    (ALL, "input", [{"type": "reasoning", "summary": [{"type": "summary_text"}]}],
     "input[0].summary[0].text"),
    (ALL, "instructions", 5, "instructions"),
    (ALL, "previous_response_id", 5, "previous_response_id"),
    (ALL, "previous_response_id", "", "previous_response_id"),
    (ALL, "previous_response_id", "resp_nope", "previous_response_id"),
    (ALL, "previous_response_id", "\x00", "previous_response_id"),
    (ALL, "previous_response_id", "a" * 500, "previous_response_id"),
    (BOTH, "conversation", 5, "conversation"),
    (BOTH, "conversation", {}, "conversation.id"),
    (BOTH, "tools", "all", "tools"),
    (BOTH, "tools", ["all"], "tools[0]"),
    (BOTH, "tools", [{}], "tools[0].type"),
    (BOTH, "tools", [{"type": "image_generation"}], "tools[0].type"),
    (BOTH, "tools", [{"type": "function"}], "tools[0].name"),
    (BOTH, "tools", [{"type": "function", "function": {"name": "f"}}], "tools[0].name"),
    (BOTH, "tools", [{**FUNCTION, "name": "a b"}], "tools[0].name"),
    (BOTH, "tools", [{**FUNCTION, "name": "f\n"}], "tools[0].name"),
    (BOTH, "tools", [{**FUNCTION, "name": "f" * 200}], "tools[0].name"),
    (BOTH, "tools", [{**FUNCTION, "parameters": "x"}], "tools[0].parameters"),
    (BOTH, "tools", [{**FUNCTION, "strict": "x"}], "tools[0].strict"),
    (BOTH, "tools", [FUNCTION, FUNCTION], "tools[1].name"),
    (BOTH, "tools", [{"type": "function", "name": f"f{n}"} for n in range(129)], "tools"),
    (BOTH, "tools", [{"type": "file_search"}], "tools[0].vector_store_ids"),
    (BOTH, "tools", [{**SEARCH, "vector_store_ids": []}], "tools[0].vector_store_ids"),
    (BOTH, "tools", [{**SEARCH, "vector_store_ids": "vs_1"}], "tools[0].vector_store_ids"),
    (BOTH, "tools", [{**SEARCH, "vector_store_ids": [5]}], "tools[0].vector_store_ids[0]"),
    ((CREATE,), "tools", [{**SEARCH, "vector_store_ids": ["vs_1", "vs_2"]}],
     "tools[0].vector_store_ids[1]"),
    ((CREATE,), "tools", [{**SEARCH, "vector_store_ids": ["\x00"]}],
     "tools[0].vector_store_ids[0]"),
    (BOTH, "tools", [{**SEARCH, "max_num_results": 0}], "tools[0].max_num_results"),
    (BOTH, "tools", [{**SEARCH, "max_num_results": 51}], "tools[0].max_num_results"),
    (BOTH, "tools", [{**SEARCH, "max_num_results": "5"}], "tools[0].max_num_results"),
    (BOTH, "tools", [{**SEARCH, "ranking_options": {"ranker": "x"}}],
     "tools[0].ranking_options.ranker"),
    (BOTH, "tools", [{**SEARCH, "ranking_options": {"score_threshold": 2}}],
     "tools[0].ranking_options.score_threshold"),
    (BOTH, "tools", [{**SEARCH, "filters": []}], "tools[0].filters"),
    ((CREATE,), "tools", [{**SEARCH, "filters": {"type": "x"}}], "tools[0].filters.type"),
    ((CREATE,), "tools", [{**SEARCH, "filters": {"type": "and", "filters": [
        {"type": "eq", "key": 5, "value": 1}]}}], "tools[0].filters.filters[0].key"),
    (BOTH, "tools", [{"type": "web_search"}], "tools[0]"),
    (BOTH, "tools", [{"type": "mcp"}], "tools[0].server_label"),
    (BOTH, "tools", [{"type": "mcp", "server_label": "a", "server_url": 5}], "tools[0].server_url"),
    (BOTH, "tools", [{"type": "mcp", "server_label": "a", "require_approval": "x"}],
     "tools[0].require_approval"),
    (BOTH, "tool_choice", "any", "tool_choice"),
    (BOTH, "tool_choice", "", "tool_choice"),
    (BOTH, "tool_choice", "required", "tool_choice"),
    (BOTH, "tool_choice", 5, "tool_choice"),
    (BOTH, "tool_choice", {}, "tool_choice.type"),
    (BOTH, "tool_choice", {"type": 5}, "tool_choice.type"),
    (BOTH, "tool_choice", {"type": "function", "name": "f"}, "tool_choice"),
    (BOTH, "tool_choice", {"type": "file_search"}, "tool_choice"),
    (BOTH, "tool_choice", {"type": "allowed_tools"}, "tool_choice.mode"),
    (BOTH, "tool_choice", {"type": "allowed_tools", "mode": "none", "tools": [FUNCTION]},
     "tool_choice.mode"),
    (BOTH, "tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": []},
     "tool_choice.tools"),
    (BOTH, "tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}]},
     "tool_choice.tools[0].type"),
    (BOTH, "text", "json", "text"),
    (BOTH, "text", {"format": "json"}, "text.format"),
    (BOTH, "text", {"format": {}}, "text.format.type"),
    (BOTH, "text", {"format": {"type": "xml"}}, "text.format.type"),
    (BOTH, "text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema"),
    (BOTH, "text", {"format": {"type": "json_schema", "schema": {}}}, "text.format.name"),
    (BOTH, "text", {"format": {"type": "json_schema", "name": "a b", "schema": {}}},
     "text.format.name"),
    (BOTH, "text", {"format": {"type": "json_schema", "name": "a", "schema": []}},
     "text.format.schema"),
    (BOTH, "text", {"verbosity": "loud"}, "text.verbosity"),
    (BOTH, "reasoning", "high", "reasoning"),
    (BOTH, "reasoning", {"effort": "some"}, "reasoning.effort"),
    (BOTH, "reasoning", {"summary": 1}, "reasoning.summary"),
    (BOTH, "parallel_tool_calls", "no", "parallel_tool_calls"),
    (BOTH, "truncation", "some", "truncation"),
    *[
        ((CREATE,), name, value, name)
        for name, value in (
            ("background", "x"), ("frequency_penalty", 3), ("include", "x"), ("guardrails", 5),
            ("guardrails", ["shield"]), ("max_infer_iters", 0), ("max_infer_iters", "x"),
            ("max_output_tokens", 0), ("max_output_tokens", 1.5), ("max_output_tokens", "x"),
            ("max_tool_calls", 0), ("max_tool_calls", []), ("metadata", "x"), ("metadata", []),
            ("metadata", {str(n): "x" for n in range(17)}), ("presence_penalty", -3),
            ("prompt_cache_key", 5), ("safety_identifier", 5), ("service_tier", 5),
            ("store", "x"), ("stream", "x"), ("stream", 1), ("stream_options", "x"),
            ("temperature", "hot"), ("temperature", 3), ("temperature", -1), ("top_logprobs", 21),
            ("top_logprobs", -1), ("top_p", 2), ("top_p", [1]), ("user", 5),
        )
    ],
    ((CREATE,), "include", [5], "include[0]"),
    ((CREATE,), "guardrails", [{"kind": "x"}], "guardrails[0].type"),
    ((CREATE,), "metadata", {"a": 5}, "metadata.a"),
    ((CREATE,), "metadata", {"a": "x" * 513}, "metadata.a"),
    ((CREATE,), "stream_options", {"include_obfuscation": 1}, "stream_options.include_obfuscation"),
    ((CREATE,), "prompt", "x", "prompt"),
    ((CREATE,), "prompt", {}, "prompt.id"),
    ((CREATE,), "prompt", {"id": "p", "variables": []}, "prompt.variables"),
]  # fmt: skip


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-chat"]) as server:
        yield server


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest,
    upstream: FakeVllm,
    embedding: FakeVllm,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    folder: Path = tmp_path_factory.mktemp("wrong")
    async with InProcessGateway(
        discover=[upstream.url, embedding.url],
        models=["fake-chat", "fake-embedding"],
        server={"profile": request.param},
        data_dir=str(folder),
        discover_interval_seconds=3600,
    ) as gateway:
        state = gateway.application.state
        await Shelf(state.database, state.index).open()
        yield gateway


@pytest.fixture(scope="module")
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


def posts(server: FakeVllm) -> int:
    return sum(request.method == "POST" for request in server.requests)


@pytest.mark.parametrize(
    ("path", "field", "value", "param"),
    [
        pytest.param(path, field, value, param, id=f"{path} {number} {param}")
        for number, (paths, field, value, param) in enumerate(WRONG)
        for path in paths
    ],
)
async def test_a_wrong_field_is_named(
    http: httpx.AsyncClient, upstream: FakeVllm, path: str, field: str, value: Any, param: str
) -> None:
    """400, or 404 for what isn't there; as a stream it is the same, and no event."""
    body = {k: v for k, v in {**GOOD, field: value}.items() if v is not ABSENT}
    asked = posts(upstream)
    answer = await http.post(path, json=body)
    error = refused(answer, answer.status_code)
    assert answer.status_code in (400, 404), answer.text
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"
    if path == CREATE and field != "stream":
        streamed = await http.post(path, json={**body, "stream": True})
        assert (streamed.status_code, streamed.json()) == (answer.status_code, answer.json())
    assert posts(upstream) == asked


QUERIES: list[tuple[str, str, int, str]] = [
    *[
        (f"{CREATE}{path}", f"{name}={value}", status, name)
        for path, status in (("", 400), ("/there/input_items", 400))
        for name, value in (
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "x"),
            ("limit", "1" * 30),
            ("order", "up"),
        )
    ],
    (f"{CREATE}/there", "stream=maybe", 400, "stream"),
    (f"{CREATE}/there", "stream=true&starting_after=x", 400, "starting_after"),
]


@pytest.mark.parametrize(("path", "query", "status", "param"), QUERIES)
async def test_a_wrong_query_is_named(
    http: httpx.AsyncClient, path: str, query: str, status: int, param: str
) -> None:
    """So are the parameters of what is read."""
    made = (await http.post(CREATE, json=GOOD)).json()["id"]
    answer = await http.get(f"{path.replace('there', made)}?{query}")
    assert refused(answer, status)["param"] == param


@pytest.mark.parametrize("response_id", ["resp_nope", "%00", "a" * 5000, "%ED%A0%80", "%0A"])
async def test_what_is_not_there_is_a_404(http: httpx.AsyncClient, response_id: str) -> None:
    """For each route of a response."""
    for method, path in (
        ("GET", ""),
        ("GET", "?stream=true"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/input_items"),
    ):
        answer = await http.request(method, f"{CREATE}/{response_id}{path}")
        assert refused(answer, 404)["type"] == "invalid_request_error"


async def test_a_model_of_another_kind_is_refused(http: httpx.AsyncClient) -> None:
    """An embedding model makes no responses; an unknown model is a 404."""
    for path in ALL:
        wrong = refused(await http.post(path, json={**GOOD, "model": "fake-embedding"}), 400)
        assert (wrong["param"], wrong["code"]) == ("model", "model_not_supported")
        unknown = refused(await http.post(path, json={**GOOD, "model": "nope"}), 404)
        assert (unknown["param"], unknown["code"]) == ("model", "model_not_found")


async def test_an_unknown_store_is_told_as_the_profile_tells_it(
    gateway: InProcessGateway, http: httpx.AsyncClient
) -> None:
    """404 as at OpenAI, 400 as at LlamaStack."""
    status = 404 if gateway.settings.server.profile == "openai" else 400
    tools = [{**SEARCH, "vector_store_ids": ["vs_nope"]}]
    answer = await http.post(CREATE, json={**GOOD, "tools": tools})
    assert "vs_nope" in refused(answer, status)["message"]
