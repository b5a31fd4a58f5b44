"""Searching by OpenAI's SDK and by LlamaStack's raw query, on Milvus Lite, in both profiles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types import VectorStoreSearchResponse

from tests.support.inprocess import InProcessGateway, until
from tests.support.stored import DIMENSION, Shelf
from tests.support.upstream import FakeVllm
from tests.support.upstream.embeddings import vector

pytestmark = pytest.mark.anyio

MODEL = "fake-embedding"
EMBEDDINGS = "/v1/embeddings"
LAMP = ["the lamp of the lighthouse turns at night", "oil for the lamp is kept below"]
PLACE = {"headings": ["Handbook", "Lamps"], "pages": [3], "start": 10, "end": 50}
UNKNOWN = {"openai": NotFoundError, "llamastack": BadRequestError}


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest, embedding: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    folder: Path = tmp_path_factory.mktemp("search")
    async with InProcessGateway(
        discover=[embedding.url],
        models=[MODEL],
        server={"profile": request.param},
        data_dir=str(folder),
    ) as gateway:
        shelf = shelf_of(gateway, "vs_1")
        await shelf.open()
        await shelf.put("file-lamp", LAMP, attributes={"number": 1, "lit": True}, chunk=PLACE)
        await shelf.put("file-boat", ["the boat leaves at noon"], attributes={"number": 2})
        await shelf.put("file-late", ["the lamp"], status="in_progress")
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


def shelf_of(gateway: InProcessGateway, store_id: str) -> Shelf:
    state = gateway.application.state
    return Shelf(state.database, state.index, store_id=store_id)


def profile_of(gateway: InProcessGateway) -> str:
    return gateway.settings.server.profile


async def test_openais_client_searches(client: AsyncOpenAI, gateway: InProcessGateway) -> None:
    """The answer is what the SDK's types say, with citations beside it."""
    page = await client.vector_stores.search(
        "vs_1",
        query="lamp lighthouse night",
        max_num_results=2,
        filters={"type": "and", "filters": [{"type": "eq", "key": "lit", "value": True}]},
        ranking_options={"ranker": "auto", "score_threshold": 0.1},
    )
    first = page.data[0]
    VectorStoreSearchResponse.model_validate(first.model_dump(), strict=True)
    assert (first.file_id, first.filename) == ("file-lamp", "file-lamp.txt")
    assert [one.text for one in first.content] == LAMP[:1]
    own = {"number": 1, "lit": True}
    expected = (
        own
        if profile_of(gateway) == "openai"
        else own
        | {
            "document_id": "file-lamp",
            "file_id": "file-lamp",
            "filename": "file-lamp.txt",
            "chunk_id": "vsf_vs_1_file-lamp-0",
            "token_count": 8.0,
        }
    )
    assert first.attributes == expected
    assert first.content[0].model_extra == {
        "chunk_metadata": {
            "chunk_id": "vsf_vs_1_file-lamp-0",
            "document_id": "file-lamp",
            "source": "file-lamp.txt",
            "content_token_count": 8,
            "position": 0,
            **PLACE,
        }
    }


async def test_the_page_is_openais(http: httpx.AsyncClient) -> None:
    """Every key of the envelope is there, and there is never a second page."""
    for prefix in ("/v1", "/v1/openai/v1"):
        answer = await http.post(f"{prefix}/vector_stores/vs_1/search", json={"query": ["lamp"]})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert [page.pop("data")[0]["file_id"]] == ["file-lamp"]
        assert page == {
            "object": "vector_store.search_results.page",
            "search_query": ["lamp"],
            "has_more": False,
            "next_page": None,
        }


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
async def test_llamastacks_modes(client: AsyncOpenAI, mode: str) -> None:
    """search_mode in the body chooses; unfinished files show in none of them."""
    page = await client.vector_stores.search("vs_1", query="lamp", extra_body={"search_mode": mode})
    assert page.data[0].file_id == "file-lamp"
    assert "file-late" not in {one.file_id for one in page.data}


async def test_an_unknown_store(client: AsyncOpenAI, gateway: InProcessGateway) -> None:
    """OpenAI's way is 404, LlamaStack's 400, for searching and for a file's content."""
    unknown = UNKNOWN[profile_of(gateway)]
    with pytest.raises(unknown, match="No vector store found with id 'vs_nope'"):
        await client.vector_stores.search("vs_nope", query="lamp")
    with pytest.raises(unknown, match="No vector store found with id 'vs_nope'"):
        await client.vector_stores.files.content("file-lamp", vector_store_id="vs_nope")
    with pytest.raises(unknown, match="file-nope"):
        await client.vector_stores.files.content("file-nope", vector_store_id="vs_1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": []}, "query"),
        ({"query": ["a", " "]}, "query[1]"),
        ({"query": 5}, "query"),
        ({"query": "a", "max_num_results": 0}, "max_num_results"),
        ({"query": "a", "max_num_results": 51}, "max_num_results"),
        ({"query": "a", "search_mode": "psychic"}, "search_mode"),
        ({"query": "a", "filters": {"type": "eq", "key": "k"}}, "filters.value"),
        ({"query": "a", "filters": []}, "filters"),
        ({"query": "a", "ranking_options": {"ranker": "dice"}}, "ranking_options.ranker"),
        (
            {"query": "a", "ranking_options": {"score_threshold": 2}},
            "ranking_options.score_threshold",
        ),
        (
            {"query": "a", "ranking_options": {"impact_factor": 0}},
            "ranking_options.impact_factor",
        ),
        (
            {
                "query": "a",
                "ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}},
            },
            "ranking_options.hybrid_search",
        ),
        ({"query": "a", "ranking_options": {"ranker": "neural"}}, "ranking_options.model"),
        ({"query": "a", "rewrite_query": True}, "rewrite_query"),
    ],
)
async def test_a_wrong_search_names_the_parameter(
    http: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Every mistake is a 400 that says which field it is in."""
    answer = await http.post("/v1/vector_stores/vs_1/search", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.one_process
async def test_a_caller_that_leaves_ends_the_search(
    http: httpx.AsyncClient, embedding: FakeVllm, gateway: InProcessGateway
) -> None:
    """The embedding request is broken off, as everywhere."""
    broken_off = asyncio.Event()

    async def hangs(exchange: Any) -> None:
        try:
            await exchange.hang()
        finally:
            broken_off.set()

    embedding.behave(EMBEDDINGS, hangs)
    before = len(embedding.requests_to(EMBEDDINGS))
    try:
        search = asyncio.create_task(
            http.post("/v1/vector_stores/vs_1/search", json={"query": "lamp"})
        )
        await until(lambda: len(embedding.requests_to(EMBEDDINGS)) > before, "an embedding request")
        search.cancel()
        await asyncio.wait_for(broken_off.wait(), 20)
    finally:
        embedding.reset()
    span = await gateway.span("retrieval vs_1")
    assert span.attributes["error.type"] == "CancelledError"


async def test_content_of_a_file(client: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """The text, chunk by chunk and in order; nothing else unless it is asked for."""
    page = await client.vector_stores.files.content("file-lamp", vector_store_id="vs_1")
    assert [(one.type, one.text) for one in page.data] == [("text", text) for text in LAMP]
    answer = await http.get("/v1/vector_stores/vs_1/files/file-lamp/content")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text} for text in LAMP],
        "has_more": False,
        "next_page": None,
    }


async def test_content_with_vectors_and_metadata(http: httpx.AsyncClient) -> None:
    """LlamaStack's two switches add each chunk's vector, and where it is from."""
    answer = await http.get(
        "/v1/vector_stores/vs_1/files/file-lamp/content",
        params={"include_embeddings": True, "include_metadata": True},
    )
    first = answer.json()["data"][0]
    assert first["embedding"] == pytest.approx(vector(LAMP[0], DIMENSION), abs=1e-5)
    assert first["chunk_metadata"]["pages"] == [3]
    assert first["metadata"]["lit"] is True


async def test_content_of_a_long_file(http: httpx.AsyncClient, gateway: InProcessGateway) -> None:
    """It is sent while it is read; every chunk is there once and in order."""
    shelf = shelf_of(gateway, "vs_long")
    await shelf.open()
    for number in (400, 401):
        texts = [f"chunk {position}" for position in range(number)]
        await shelf.put(f"file-{number}", texts)
        answer = await http.get(f"/v1/vector_stores/vs_long/files/file-{number}/content")
        assert [one["text"] for one in answer.json()["data"]] == texts


async def test_content_of_a_file_in_work(client: AsyncOpenAI) -> None:
    """It has none yet, and says what it waits for."""
    with pytest.raises(BadRequestError, match="its status is 'in_progress'"):
        await client.vector_stores.files.content("file-late", vector_store_id="vs_1")


async def test_a_wrong_switch_of_the_content(http: httpx.AsyncClient) -> None:
    """A query parameter that is no boolean is named."""
    answer = await http.get(
        "/v1/vector_stores/vs_1/files/file-lamp/content?include_metadata=perhaps"
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "include_metadata")


@pytest.mark.parametrize("name", ["vector_store_id", "vector_db_id"])
async def test_llamastacks_raw_query(http: httpx.AsyncClient, name: str) -> None:
    """Chunks with everything on them, and as many scores."""
    params = {
        "mode": "hybrid",
        "max_chunks": 2,
        "score_threshold": 0.1,
        "reranker_type": "weighted",
        "reranker_params": {"alpha": 0.7},
        "filters": {"type": "lt", "key": "number", "value": 2},
    }
    answer = await http.post(
        "/v1/vector-io/query", json={name: "vs_1", "query": "the lamp", "params": params}
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {one["content"] for one in found["chunks"]} == set(LAMP)
    assert found["scores"] == sorted(found["scores"], reverse=True)
    first = found["chunks"][0]
    assert first["embedding"] == pytest.approx(vector(first["content"], DIMENSION), abs=1e-5)
    assert (first["embedding_model"], first["embedding_dimension"]) == (MODEL, DIMENSION)
    assert first["metadata"]["document_id"] == "file-lamp"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "lamp"}, "vector_store_id"),
        ({"vector_store_id": "vs_1"}, "query"),
        ({"vector_store_id": "vs_1", "query": []}, "query"),
        ({"vector_store_id": "vs_1", "query": ["a", {"type": "image"}]}, "query[1]"),
        (
            {"vector_store_id": "vs_1", "query": "a", "params": {"max_chunks": 0}},
            "params.max_chunks",
        ),
        ({"vector_store_id": "vs_1", "query": "a", "params": {"mode": "x"}}, "params.mode"),
        (
            {"vector_store_id": "vs_1", "query": "a", "params": {"filters": {"type": "x"}}},
            "params.filters.type",
        ),
    ],
)
async def test_a_wrong_raw_query_names_the_parameter(
    http: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """The same for LlamaStack's route."""
    answer = await http.post("/v1/vector-io/query", json=body)
    assert answer.status_code == 400, answer.text
    assert json.loads(answer.text)["error"]["param"] == param
