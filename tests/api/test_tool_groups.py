"""LlamaStack's tool groups, tools and tool runtime, as its clients use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway.app
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.search_engines import SearchEngine
from tests.support.tool_servers import ToolServing
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

TOKEN = "sesame-4711"
MCP = "model-context-protocol"


@pytest.fixture(scope="module")
async def open_server() -> AsyncIterator[ToolServing]:
    async with ToolServing("today") as serving:
        yield serving


@pytest.fixture(scope="module")
async def guarded() -> AsyncIterator[ToolServing]:
    """A server that wants a token."""
    async with ToolServing("sessions", token=TOKEN) as serving:
        yield serving


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[SearchEngine]:
    async with SearchEngine("searxng") as serving:
        yield serving


@pytest.fixture(scope="module")
async def running(
    open_server: ToolServing, engine: SearchEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm(["fake-embedding"], kind="embedding") as embedding,
            InProcessGateway(
                discover=[embedding.url],
                models=["fake-embedding"],
                data_dir=str(tmp_path_factory.mktemp("tools")),
                tools={
                    "connectors": [{"id": "demo", "url": open_server.url}],
                    "allowed_hosts": ["127.0.0.1"],
                },
                web_search={"kind": "searxng", "url": engine.url},
                ingestion={"attach_wait_seconds": 20},
            ) as started,
        ):
            yield started


@pytest.fixture
async def client(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as opened:
        yield opened


async def register(client: httpx.AsyncClient, name: str, url: str, **more: Any) -> None:
    body = {"toolgroup_id": name, "provider_id": MCP, "mcp_endpoint": {"uri": url}, **more}
    answer = await client.post("/v1/toolgroups", json=body)
    assert (answer.status_code, answer.content) == (200, b"null"), answer.text


async def test_the_gateways_own_groups_are_listed(
    client: httpx.AsyncClient, open_server: ToolServing
):
    """Retrieval, web search, and a group for each connector."""
    groups = (await client.get("/v1/toolgroups")).json()["data"]
    assert [one["identifier"] for one in groups] == [
        "builtin::rag",
        "builtin::websearch",
        "mcp::demo",
    ]
    assert groups[1] == {
        "identifier": "builtin::websearch",
        "provider_id": "searxng-search",
        "provider_resource_id": "builtin::websearch",
        "type": "tool_group",
        "mcp_endpoint": None,
        "args": None,
    }
    assert groups[2]["provider_id"] == MCP
    assert groups[2]["mcp_endpoint"] == {"uri": open_server.url}


async def test_a_group_is_registered_found_and_removed(
    client: httpx.AsyncClient, open_server: ToolServing
):
    """Registering it again replaces it."""
    await register(client, "mcp::mine", f"{open_server.url}x", args={"a": 1})
    await register(client, "mcp::mine", open_server.url)
    group = (await client.get("/v1/toolgroups/mcp::mine")).json()
    assert group["mcp_endpoint"] == {"uri": open_server.url}
    assert group["args"] is None
    listed = (await client.get("/v1/toolgroups")).json()["data"]
    assert [one["identifier"] for one in listed].count("mcp::mine") == 1
    gone = await client.delete("/v1/toolgroups/mcp::mine")
    assert (gone.status_code, gone.content) == (200, b"null")
    refused(await client.get("/v1/toolgroups/mcp::mine"), 404)
    refused(await client.delete("/v1/toolgroups/mcp::mine"), 404)


async def test_the_gateways_own_groups_stay(client: httpx.AsyncClient, open_server: ToolServing):
    """Registering one as LlamaStack's guides do is no mistake; another server under its name is."""
    usual = {"toolgroup_id": "builtin::websearch", "provider_id": "tavily-search"}
    assert (await client.post("/v1/toolgroups", json=usual)).status_code == 200
    other = {**usual, "mcp_endpoint": {"uri": open_server.url}}
    refused(await client.post("/v1/toolgroups", json=other), 400)
    refused(await client.delete("/v1/toolgroups/mcp::demo"), 400)
    assert (await client.get("/v1/toolgroups/builtin::websearch")).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"toolgroup_id": ""}, "toolgroup_id"),
        ({"toolgroup_id": "a b"}, "toolgroup_id"),
        ({"toolgroup_id": "a" * 81}, "toolgroup_id"),
        ({"provider_id": None}, "provider_id"),
        ({"mcp_endpoint": None}, "mcp_endpoint"),
        ({"mcp_endpoint": {}}, "mcp_endpoint.uri"),
        ({"mcp_endpoint": {"uri": "https://elsewhere.example/"}}, "mcp_endpoint.uri"),
        ({"mcp_endpoint": {"uri": "http://127.0.0.1/mcp?key=secret"}}, "mcp_endpoint.uri"),
        ({"args": {"headers": {"authorization": "x"}}}, "args"),
        ({"args": {"API_KEY": "x"}}, "args"),
        ({"args": {"a": "x" * 20_000}}, "args"),
        ({"args": {"a": "\x00"}}, "args"),
    ],
)
async def test_a_group_that_can_not_be_registered(
    change: dict[str, Any], param: str, client: httpx.AsyncClient
):
    """Above all none that holds a credential: those come with each request."""
    body = {
        "toolgroup_id": "mcp::x",
        "provider_id": MCP,
        "mcp_endpoint": {"uri": "http://127.0.0.1/mcp"},
    }
    error = refused(await client.post("/v1/toolgroups", json=body | change), 400)
    assert error["param"] == param


async def test_tools_are_listed(client: httpx.AsyncClient, open_server: ToolServing):
    """Of all groups or of one, at the places of each release, for clients old and new."""
    for path in ("/v1/tools", "/v1/admin/tools"):
        tools = {one["name"]: one for one in (await client.get(path)).json()["data"]}
        assert {"echo", "web_search", "knowledge_search"} <= set(tools)
    echo = tools["echo"]
    assert echo["toolgroup_id"] == "mcp::demo"
    assert echo["metadata"] == {"endpoint": open_server.url}
    assert echo["input_schema"]["required"] == ["text"]
    assert (echo["identifier"], echo["tool_host"]) == ("echo", "model_context_protocol")
    assert echo["parameters"] == [
        {"name": "text", "parameter_type": "string", "description": "", "required": True,
         "default": None}
    ]  # fmt: skip
    only = await client.get("/v1/tools", params={"toolgroup_id": "builtin::websearch"})
    assert [one["name"] for one in only.json()["data"]] == ["web_search"]
    runtime = await client.get(
        "/v1/tool-runtime/list-tools", params={"tool_group_id": "builtin::rag/knowledge_search"}
    )
    assert "knowledge_search" in [one["name"] for one in runtime.json()["data"]]
    refused(await client.get("/v1/tools", params={"toolgroup_id": "nope"}), 404)


@pytest.mark.parametrize("form", ["url", "json", "bracket"])
async def test_the_tools_of_a_server_by_its_url(
    form: str, client: httpx.AsyncClient, open_server: ToolServing
):
    """However a client writes the endpoint."""
    url = open_server.url
    params = {
        "url": {"mcp_endpoint": url},
        "json": {"mcp_endpoint": json.dumps({"uri": url})},
        "bracket": {"mcp_endpoint[uri]": url},
    }[form]
    tools = (await client.get("/v1/tool-runtime/list-tools", params=params)).json()["data"]
    assert "echo" in [one["name"] for one in tools]
    bad = await client.get("/v1/tool-runtime/list-tools", params={"mcp_endpoint": "{"})
    assert refused(bad, 400)["param"] == "mcp_endpoint"


async def test_one_tool_by_its_name(client: httpx.AsyncClient):
    """404 for one that isn't there."""
    assert (await client.get("/v1/tools/echo")).json()["toolgroup_id"] == "mcp::demo"
    refused(await client.get("/v1/tools/nope"), 404)


async def invoke(
    client: httpx.AsyncClient, name: str, headers: dict[str, str] | None = None, **kwargs: Any
) -> dict[str, Any]:
    body = {"tool_name": name, "kwargs": kwargs}
    answer = await client.post("/v1/tool-runtime/invoke", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_tool_is_invoked(client: httpx.AsyncClient):
    """By its name alone."""
    assert await invoke(client, "echo", text="hällo") == {
        "content": [{"type": "text", "text": "hällo"}],
        "error_message": None,
        "error_code": 0,
        "metadata": None,
    }


async def test_a_tool_that_fails_says_so_in_its_result(client: httpx.AsyncClient):
    """The request itself was fine."""
    result = await invoke(client, "fail", text="no paper")
    assert result["error_code"] == 1
    assert "no paper" in result["error_message"]


async def test_an_unknown_tool_is_not_found(client: httpx.AsyncClient):
    """And wrong bodies name the parameter."""
    answer = await client.post("/v1/tool-runtime/invoke", json={"tool_name": "x", "kwargs": {}})
    assert refused(answer, 404)["param"] == "tool_name"
    answer = await client.post("/v1/tool-runtime/invoke", json={"tool_name": "echo"})
    assert refused(answer, 400)["param"] == "kwargs"


async def test_the_web_is_searched(client: httpx.AsyncClient, engine: SearchEngine):
    """Results as JSON in the text; a failing engine is in the result too."""
    result = await invoke(client, "web_search", query="lamp")
    found = json.loads(result["content"])
    assert found["query"] == "lamp"
    assert found["top_k"][0]["url"] == "https://lamps.example/a"
    engine.behave(500)
    result = await invoke(client, "web_search", query="lamp")
    engine.behaviour = None
    assert (result["error_code"], result["content"]) == (1, None)
    assert "HTTP status 500" in result["error_message"]
    bad = await client.post(
        "/v1/tool-runtime/invoke", json={"tool_name": "web_search", "kwargs": {"query": 7}}
    )
    assert refused(bad, 400)["param"] == "kwargs.query"


@pytest.mark.parametrize("name", ["X-LlamaStack-Provider-Data", "X-OGX-Provider-Data"])
async def test_credentials_come_with_the_request(
    name: str, client: httpx.AsyncClient, guarded: ToolServing, open_server: ToolServing
):
    """By the server's URL; without them the client learns that it has to send some."""
    await register(client, "mcp::guarded", guarded.url)
    params = {"tool_group_id": "mcp::guarded"}
    path = "/v1/tool-runtime/list-tools"
    assert refused(await client.get(path, params=params), 401)["code"] == "tool_server_refused"
    data = {"mcp_headers": {guarded.url: {"Authorization": f"Bearer {TOKEN}"}}}
    headers = {name: json.dumps(data)}
    tools = (await client.get(path, params=params, headers=headers)).json()["data"]
    assert "echo" in [one["name"] for one in tools]
    other = {"mcp_headers": {open_server.url: {"Authorization": f"Bearer {TOKEN}"}}}
    refused(await client.get(path, params=params, headers={name: json.dumps(other)}), 401)
    for odd in ("{", "[]", '{"mcp_headers": 1}', '{"mcp_headers": {"a": {"b": 1}}}'):
        refused(await client.get(path, params=params, headers={name: odd}), 400)
    assert (await client.delete("/v1/toolgroups/mcp::guarded")).status_code == 200


async def test_a_token_may_come_as_authorization(client: httpx.AsyncClient, guarded: ToolServing):
    """As LlamaStack's clients send it since 0.4."""
    params = {"mcp_endpoint": guarded.url, "authorization": TOKEN}
    tools = (await client.get("/v1/tool-runtime/list-tools", params=params)).json()["data"]
    assert "echo" in [one["name"] for one in tools]


async def test_a_server_that_is_down_leaves_the_others_listed(client: httpx.AsyncClient):
    """Asked for by name, its failure is the answer: 502, which is nobody's mistake."""
    await register(client, "mcp::down", "http://127.0.0.1:9/mcp")
    tools = (await client.get("/v1/tools")).json()["data"]
    assert "echo" in [one["name"] for one in tools]
    answer = await client.get("/v1/tools", params={"toolgroup_id": "mcp::down"})
    assert refused(answer, 502)["code"] == "tool_server_failed"
    assert (await client.delete("/v1/toolgroups/mcp::down")).status_code == 200


async def test_documents_are_inserted_and_found(client: httpx.AsyncClient):
    """LlamaStack's retrieval: text, text items and a data URL go in, and text for a model comes."""
    store = (await client.post("/v1/vector_stores", json={"name": "lamps"})).json()["id"]
    documents = [
        {"document_id": "one", "content": "The lamp of the lighthouse turns at night."},
        {"document_id": "two", "content": [{"type": "text", "text": "Bread is baked."}],
         "metadata": {"filename": "bread.txt", "topic": "food"}},
        {"document_id": "three", "content": "data:text/plain;base64,VHJhaW5zIGFyZSBsYXRlLg=="},
    ]  # fmt: skip
    body = {"documents": documents, "vector_db_id": store, "chunk_size_in_tokens": 256}
    answer = await client.post("/v1/tool-runtime/rag-tool/insert", json=body)
    assert (answer.status_code, answer.content) == (200, b"null"), answer.text
    files = (await client.get(f"/v1/vector_stores/{store}/files")).json()["data"]
    assert [one["status"] for one in files] == ["completed"] * 3
    assert {"document_id": "two", "filename": "bread.txt", "topic": "food"} in [
        one["attributes"] for one in files
    ]
    question = {
        "content": "The lamp of the lighthouse turns at night.",
        "vector_db_ids": [store],
        "query_config": {"max_chunks": 2, "chunk_template": "{index}: {chunk.content}\n"},
    }
    found = (await client.post("/v1/tool-runtime/rag-tool/query", json=question)).json()
    texts = [one["text"] for one in found["content"]]
    assert texts[0].startswith("knowledge_search tool found 2 chunks:")
    assert texts[1] == "1: The lamp of the lighthouse turns at night.\n"
    assert found["metadata"]["chunks"][0] == "The lamp of the lighthouse turns at night."
    result = await invoke(
        client, "knowledge_search", query="Trains are late.", vector_store_ids=[store]
    )
    assert result["metadata"]["chunks"][0] == "Trains are late."


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"vector_db_id": None}, "vector_store_id"),
        ({"documents": [{"document_id": "a", "content": "data:text/plain;base64,?"}]},
         "documents[0].content"),
        ({"documents": [{"document_id": "a", "content": "x", "metadata": {"a": {}}}]},
         "attributes"),
        ({"documents": [{"document_id": "", "content": "x"}]}, "documents[0].document_id"),
        ({"chunk_size_in_tokens": 1}, "chunk_size_in_tokens"),
    ],
)  # fmt: skip
async def test_documents_that_can_not_be_inserted(
    change: dict[str, Any], param: str, client: httpx.AsyncClient
):
    """The parameter is named, and no file is left of them."""
    store = (await client.post("/v1/vector_stores", json={})).json()["id"]
    before = len((await client.get("/v1/files")).json()["data"])
    body = {"documents": [{"document_id": "a", "content": "x"}], "vector_db_id": store} | change
    answer = await client.post("/v1/tool-runtime/rag-tool/insert", json=body)
    assert refused(answer, 400)["param"].startswith(param)
    assert len((await client.get("/v1/files")).json()["data"]) == before


async def test_a_group_that_is_not_there_is_400_in_llamastacks_way(tmp_path: Path):
    """The profile decides."""
    async with (
        InProcessGateway(server={"profile": "llamastack"}, data_dir=str(tmp_path)) as gateway,
        gateway.client() as client,
    ):
        refused(await client.get("/v1/toolgroups/nope"), 400)
        groups = (await client.get("/v1/toolgroups")).json()["data"]
        assert [one["identifier"] for one in groups] == ["builtin::rag"]
