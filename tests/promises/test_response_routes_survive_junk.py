"""Whatever a caller sends to the routes of responses, no fault of the gateway's comes of it.

On SQLite, and on PostgreSQL, which refuses more.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gateway.app
from tests.promises.test_stateful_routes_survive_junk import (
    COMPARED,
    IDS,
    QUERIES,
    VALUES,
    spoiled,
    without_defects,
)
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm
from tests.support.wire import Poster

pytestmark = pytest.mark.anyio

CREATE = "/v1/responses"
JSON = {"content-type": "application/json"}
PNG = "data:image/png;base64,iVBORw0KGgo="
ITEMS: list[dict[str, Any]] = [
    {"role": "developer", "content": "a"},
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": PNG, "detail": "low"},
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "a", "annotations": [{}], "logprobs": [{}]},
            {"type": "refusal", "refusal": "no"},
        ],
    },
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "s"}],
        "content": [{"type": "reasoning_text", "text": "t"}],
        "encrypted_content": "x",
    },
    {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "o"}],
    },
    {
        "type": "file_search_call",
        "id": "fs_1",
        "status": "completed",
        "queries": ["q"],
        "results": [{"file_id": "f", "filename": "n", "score": 1, "text": "t", "attributes": {}}],
    },
    {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    },
    {
        "type": "mcp_list_tools",
        "id": "mcpl_1",
        "server_label": "s",
        "tools": [{"name": "t", "input_schema": {}, "annotations": {}, "description": "d"}],
        "error": None,
    },
    {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
        "output": "o",
        "error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "t"}]},
        "approval_request_id": "mcpr_0",
    },
    {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
    },
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False},
]
FIELDS = sorted({field for item in ITEMS for field in item} | {"extra"})
FILTERS = {"type": "and", "filters": [{"type": "eq", "key": "a", "value": 1}]}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
    {
        "type": "file_search",
        "vector_store_ids": ["vs_1"],
        "filters": FILTERS,
        "max_num_results": 5,
        "ranking_options": {"ranker": "auto", "score_threshold": 0.1},
        "search_mode": "vector",
    },
]
BODY: dict[str, Any] = {
    "model": "fake-chat",
    "input": "a",
    "instructions": "b",
    "previous_response_id": None,
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    },
    "tools": TOOLS,
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
    "include": ["file_search_call.results"],
    "max_output_tokens": 16,
    "max_tool_calls": 2,
    "max_infer_iters": 2,
    "parallel_tool_calls": False,
    "truncation": "auto",
    "temperature": 1,
    "top_p": 1,
    "top_logprobs": 0,
    "user": "u",
    "safety_identifier": "u",
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "store": True,
    "stream": False,
    "stream_options": {"include_obfuscation": False},
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "seed": 1,
    "top_k": 5,
    "chat_template_kwargs": {"thinking": False},
}


@pytest.fixture(scope="module")
async def upstreams() -> AsyncIterator[list[FakeVllm]]:
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm(["fake-embedding"], kind="embedding") as embedding,
    ):
        yield [chat, embedding]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a gateway on either database."""
    if request.param == "sqlite":
        return {}
    postgres = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    return {"database": {"url": postgres.create_database(template)}}


@pytest.fixture(scope="module")
async def running(
    sections: dict[str, Any],
    upstreams: list[FakeVllm],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with InProcessGateway(
            discover=[one.url for one in upstreams],
            models=["fake-chat", "fake-embedding"],
            data_dir=str(tmp_path_factory.mktemp("junk")),
            traced=False,
            ingestion={"embedded_worker": False},
            discover_interval_seconds=3600,
            **sections,
        ) as started:
            state = started.application.state
            await Shelf(state.database, state.index).open()
            yield started


@pytest.fixture
async def http(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


@pytest.mark.parametrize(
    ("sections", "junk"),
    [
        *(("postgresql", junk) for junk in VALUES),
        *(("sqlite", junk) for junk in COMPARED),
    ],
    indirect=["sections"],
    scope="module",
)
async def test_no_value_of_a_body_is_a_fault_of_the_gateway(running, junk):
    """Each value of a request in turn is what no caller should send, those of items and tools too;
    as a stream as well, and to count and to compact."""
    bodies = [(CREATE, BODY)]
    bodies += [(CREATE, {"model": "fake-chat", "input": [item]}) for item in ITEMS]
    bodies += [(CREATE, {"model": "fake-chat", "input": ITEMS, "stream": True})]
    bodies += [
        (f"{CREATE}/input_tokens", {k: BODY[k] for k in ("model", "input", "tools", "text")}),
        (f"{CREATE}/compact", {"model": "fake-chat", "input": ITEMS[:1], "instructions": "x"}),
    ]
    async with Poster(running.port) as poster:
        for path, body in bodies:
            for place, content in spoiled(body, VALUES[junk]):
                answer = await poster.post(path, content)
                without_defects(answer, f"{path} {place} = {junk}")


async def test_what_was_sent_can_be_read_again(http):
    """Odd texts that are no mistakes come back as they were, from either database."""
    text = "nul \x00, \ufffe, 😀, \u2028, \x1b"
    made = await http.post(
        CREATE,
        json={"model": "fake-chat", "input": text, "instructions": text, "metadata": {"a": "b"}},
    )
    assert made.status_code == 200, made.text
    response = made.json()
    assert (await http.get(f"{CREATE}/{response['id']}")).json() == response
    items = (await http.get(f"{CREATE}/{response['id']}/input_items")).json()["data"]
    assert items[0]["content"][0]["text"] == text
    listed = (await http.get(CREATE)).json()["data"][0]
    assert (listed["id"], listed["input"]) == (response["id"], items)
    follow = {"model": "fake-chat", "input": "a", "previous_response_id": response["id"]}
    assert (await http.post(CREATE, json=follow)).status_code == 200


async def test_no_query_parameter_is_a_fault_of_the_gateway(http):
    """Wrong ones are refused by name, unknown ones passed by."""
    made = (await http.post(CREATE, json={"model": "fake-chat", "input": "a"})).json()["id"]
    queries = [
        *QUERIES,
        *(f"model={one}" for one in IDS),
        *(f"include[]={one}" for one in IDS),
        *(f"include={one}" for one in IDS),
        *(f"stream=true&starting_after={one}" for one in ("-1", "1" * 30, "x", "%00", "1.5")),
    ]
    paths = (CREATE, f"{CREATE}/{made}", f"{CREATE}/{made}/input_items")
    for path, query in itertools.product(paths, queries):
        answer = await http.get(f"{path}?{query}")
        assert answer.status_code < 500, f"{path}?{query[:100]} {answer.text[:300]}"
        if answer.status_code >= 400:
            without_defects(answer, f"{path}?{query[:100]}")


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["message", "function_call", "reasoning", "input_text", "user", "mcp"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "role", "content", "id", "text", "call_id", "name", "arguments"),
                    *("output", "tools", "summary", "error", "server_label", "results"),
                    *("queries", "action"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(field=st.sampled_from(["input", "tools", "tool_choice", "text", "prompt"]), value=JUNK)
async def test_no_shape_of_a_field_is_a_fault_of_the_gateway(http, field, value):
    """Made up from the words that items and tools are made of."""
    body = {"model": "fake-chat", "input": "a", field: value}
    answer = await http.post(CREATE, content=json.dumps(body).encode(), headers=JSON)
    without_defects(answer, body)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=JUNK, at=st.integers(0, len(ITEMS) - 1), field=st.sampled_from(FIELDS))
async def test_no_shape_of_an_item_is_a_fault_of_the_gateway(http, value, at, field):
    """One field of a good item is something else, or is one that it doesn't have."""
    body = {"model": "fake-chat", "input": [*ITEMS[:at], {**ITEMS[at], field: value}]}
    answer = await http.post(CREATE, content=json.dumps(body).encode(), headers=JSON)
    without_defects(answer, body)
