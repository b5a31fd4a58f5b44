"""What a search finds, on both databases, with an index in memory and a fake embedding model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, update

from gateway.database.engine import Database
from gateway.database.tables import ChunkRow, VectorStoreRow
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    UpstreamError,
    UpstreamUnavailable,
)
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.profile import profile_of
from gateway.settings import SearchSettings
from gateway.vector_stores.hits import HitRepository
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.reranking import Reranker
from gateway.vector_stores.rewriting import QueryRewriter
from gateway.vector_stores.search import SearchService
from gateway.vector_stores.search_schemas import QueryRequest, SearchPage, SearchRequest
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

EMBEDDINGS, RERANK, CHAT = "/v1/embeddings", "/v1/rerank", "/v1/chat/completions"
MODEL = "fake-embedding"
TEXTS = {
    "file-lamp": ["the lamp of the lighthouse turns at night", "oil for the lamp is kept below"],
    "file-boat": ["the boat leaves at noon", "error E4711 stops the engine of the boat"],
    "file-gull": ["gulls sleep on the rocks at night"],
}


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, FakeVllm]]:
    async with (
        FakeVllm(["fake-chat"]) as chat,
        FakeVllm([MODEL], kind="embedding") as embedding,
    ):
        yield {"chat": chat, "embedding": embedding}


@pytest.fixture(scope="module")
async def gateway(servers: dict[str, FakeVllm]) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[server.url for server in servers.values()],
        models=["fake-chat", MODEL],
        environment={"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"},
    ) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
async def honest(servers: dict[str, FakeVllm]) -> AsyncIterator[None]:
    yield
    for server in servers.values():
        server.reset()


class Searching:
    """A search service over a database and an index in memory, and a store to search."""

    def __init__(self, gateway: InProcessGateway, database: Database, **settings: Any) -> None:
        application = gateway.application
        self.gateway = gateway
        self.database = database
        self.index = MemoryVectorIndex()
        self.shelf = Shelf(database, self.index)
        self.last_active = LastActive(database)
        chosen = SearchSettings(**settings)
        self.service = SearchService(
            hits=HitRepository(database),
            index=self.index,
            embedder=application.embedder,
            rewriter=QueryRewriter(application.client, chosen.rewrite_model),
            reranker=Reranker(application.catalog, application.client, chosen.rerank_model),
            last_active=self.last_active,
            settings=chosen,
            profile=profile_of("openai"),
        )

    async def search(self, query: Any = "lamp", store: str = "vs_1", **more: Any) -> SearchPage:
        request = msgspec.convert({"query": query, **more}, SearchRequest)
        with Activity.of_job(self.gateway.application.telemetry, "test") as activity:
            return await self.service.search(Principal(), activity, store, request)

    async def files(self, query: Any = "lamp", **more: Any) -> list[str]:
        return [one.file_id for one in (await self.search(query, **more)).data]


@pytest.fixture
async def searching(gateway: InProcessGateway, database: Database) -> Searching:
    searching = Searching(gateway, database)
    await searching.shelf.open()
    for number, (file_id, texts) in enumerate(TEXTS.items()):
        attributes = {"number": number, "language": "en" if number else "de"}
        await searching.shelf.put(file_id, texts, attributes=attributes)
    return searching


@pytest.fixture
def asked(servers: dict[str, FakeVllm]) -> Callable[[str], list[Any]]:
    """What the models were asked since the test began, without discovery's own requests."""
    server = {EMBEDDINGS: "embedding", RERANK: "embedding", CHAT: "chat"}
    before = {path: len(servers[name].requests_to(path)) for path, name in server.items()}

    def since(path: str) -> list[Any]:
        received = servers[server[path]].requests_to(path)[before[path] :]
        return [json.loads(one.body) for one in received if one.body]

    return since


# ------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
async def test_the_best_chunk_is_first(searching: Searching, mode: str) -> None:
    """Each mode finds what was asked for, with scores that descend within 0 and 1."""
    page = await searching.search("error E4711", search_mode=mode)
    assert page.data[0].content[0].text == TEXTS["file-boat"][1]
    scores = [one.score for one in page.data]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert (page.search_query, page.has_more, page.next_page) == (["error E4711"], False, None)


async def test_keywords_need_no_embedding(
    searching: Searching, asked: Callable[[str], list[Any]]
) -> None:
    """A keyword search asks no model, and finds only what has one of the words."""
    assert await searching.files("night", search_mode="keyword") == ["file-gull", "file-lamp"]
    assert asked(EMBEDDINGS) == []


async def test_results_are_chunks(searching: Searching) -> None:
    """A file may appear with several of its chunks; each says where it is from."""
    page = await searching.search("the lamp", max_num_results=2)
    assert [one.file_id for one in page.data] == ["file-lamp", "file-lamp"]
    assert {one.filename for one in page.data} == {"file-lamp.txt"}
    assert page.data[0].attributes == {"number": 0, "language": "de"}
    assert {one.content[0].chunk_metadata.position for one in page.data} == {0, 1}


async def test_several_queries_count_by_their_best(
    searching: Searching, asked: Callable[[str], list[Any]]
) -> None:
    """Each query of a list is searched; a chunk has the score of the one it fits best."""
    alone = {
        one.content[0].text: one.score
        for query in ("lamp oil", "gulls")
        for one in (await searching.search(query, max_num_results=1)).data
    }
    page = await searching.search(["lamp oil", "gulls"], max_num_results=2)
    assert {one.content[0].text: one.score for one in page.data} == pytest.approx(alone)
    assert page.search_query == ["lamp oil", "gulls"]
    assert asked(EMBEDDINGS)[-1]["input"] == ["lamp oil", "gulls"]


async def test_a_threshold_keeps_what_is_at_least_as_good(searching: Searching) -> None:
    """No result is below ranking_options.score_threshold."""
    everything = await searching.search("the lamp of the lighthouse")
    middle = everything.data[1].score
    kept = await searching.search(
        "the lamp of the lighthouse", ranking_options={"score_threshold": middle}
    )
    assert [one.score for one in kept.data] == [one.score for one in everything.data[:2]]


async def test_the_default_mode_is_configured(
    gateway: InProcessGateway, database: Database
) -> None:
    """search.default_mode counts where nothing is asked for, as far as the store can do it."""
    searching = Searching(gateway, database, default_mode="hybrid")
    await searching.shelf.open()
    plain = Shelf(database, searching.index, store_id="vs_plain", keyword=False)
    await plain.open()
    for shelf in (searching.shelf, plain):
        await shelf.put(f"file-{shelf.where.store_id}", ["a lamp"])
    assert await searching.files() == ["file-vs_1"]
    assert {method for method, *_ in searching.index.calls} == {"search", "search_text"}
    searching.index.calls.clear()
    assert await searching.files(store="vs_plain") == ["file-vs_plain"]
    assert {method for method, *_ in searching.index.calls} == {"search"}


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
async def test_a_store_without_full_text_search(
    gateway: InProcessGateway, database: Database, mode: str
) -> None:
    """Asking such a store for words is refused with what would be needed."""
    searching = Searching(gateway, database)
    searching.shelf = Shelf(database, searching.index, keyword=False)
    await searching.shelf.open()
    with pytest.raises(InvalidRequest, match=r"Milvus 2\.5") as refused:
        await searching.search(search_mode=mode)
    assert refused.value.param == "search_mode"


# ------------------------------------------------------------------------------------- how it ranks


async def test_weights_decide_between_words_and_vectors(searching: Searching) -> None:
    """OpenAI's hybrid_search turns hybrid search on; each weight alone gives that list's order."""
    query = "boat engine error"
    for weights, mode in (((1, 0), "vector"), ((0, 1), "keyword")):
        options = {"hybrid_search": {"embedding_weight": weights[0], "text_weight": weights[1]}}
        fused = await searching.search(query, ranking_options=options)
        alone = await searching.search(query, search_mode=mode)
        texts = [one.content[0].text for one in alone.data]
        assert [one.content[0].text for one in fused.data][: len(texts)] == texts


@pytest.mark.parametrize("ranker", ["weighted", "normalized"])
async def test_weighted_scores_are_a_mean(searching: Searching, ranker: str) -> None:
    """With alpha 0.25 a score is a quarter vector and three quarters words."""
    query = "error E4711"
    [near] = (await searching.search(query, max_num_results=1)).data
    [said] = (await searching.search(query, max_num_results=1, search_mode="keyword")).data
    [both] = (
        await searching.search(
            query,
            max_num_results=1,
            search_mode="hybrid",
            ranking_options={"ranker": ranker, "alpha": 0.25},
        )
    ).data
    assert both.score == pytest.approx(0.25 * near.score + 0.75 * said.score)


async def test_a_rerank_model_has_the_last_word(
    gateway: InProcessGateway, database: Database, asked: Callable[[str], list[Any]]
) -> None:
    """It sees more chunks than the page has, with their headings, and its scores are the page's."""
    searching = Searching(gateway, database, rerank_model=MODEL)
    await searching.shelf.open()
    for number in range(9):
        await searching.shelf.put(
            f"file-{number}", [f"boat {'lamp ' * number}"], chunk={"headings": [f"part {number}"]}
        )
    page = await searching.search(
        "lamp", max_num_results=2, ranking_options={"ranker": "neural"}, search_mode="keyword"
    )
    [sent] = asked(RERANK)
    assert (sent["query"], len(sent["documents"])) == ("lamp", 8)
    assert sent["documents"][0].startswith("part ")
    assert len(page.data) == 2
    assert page.data[0].score >= page.data[1].score


async def test_a_rerank_model_that_fails_fails_the_search(
    gateway: InProcessGateway, database: Database, servers: dict[str, FakeVllm]
) -> None:
    """Results in another order than asked for would pass for the right one."""
    searching = Searching(gateway, database)
    await searching.shelf.open()
    await searching.shelf.put("file-1", ["a lamp", "a boat"])
    options = {"ranker": "neural", "model": MODEL}
    servers["embedding"].behave(RERANK, faults.resets_before_head())
    with pytest.raises(UpstreamError):
        await searching.search(ranking_options=options)
    servers["embedding"].behave(RERANK, _answers({"results": [{"index": 0, "relevance_score": 1}]}))
    with pytest.raises(UpstreamError, match="ranked 1 of 2 texts"):
        await searching.search(ranking_options=options)


@pytest.mark.parametrize(
    ("model", "error"),
    [(None, InvalidRequest), ("nope", ModelNotFound), ("fake-chat", InvalidRequest)],
)
async def test_a_rerank_model_must_be_there(
    searching: Searching,
    asked: Callable[[str], list[Any]],
    model: str | None,
    error: type[GatewayError],
) -> None:
    """The error names the parameter and comes before anything is asked of a model."""
    with pytest.raises(error) as refused:
        await searching.search(ranking_options={"ranker": "neural", "model": model})
    assert refused.value.param == "ranking_options.model"
    assert asked(EMBEDDINGS) == []


# ------------------------------------------------------------------------------------------ filters


async def test_filters_reach_the_index_as_files(searching: Searching) -> None:
    """Files that don't match are not searched at all."""
    found = await searching.files(filters={"type": "gte", "key": "number", "value": 1})
    assert set(found) == {"file-boat", "file-gull"}
    assert searching.index.calls[-1][2] == ("vsf_vs_1_file-boat", "vsf_vs_1_file-gull")


async def test_a_filter_that_all_files_match_costs_nothing(searching: Searching) -> None:
    """The index is then asked without a list of files."""
    await searching.files(filters={"type": "ne", "key": "number", "value": 7})
    assert searching.index.calls[-1][2] is None


async def test_a_filter_that_no_file_matches(
    searching: Searching, asked: Callable[[str], list[Any]]
) -> None:
    """The page is empty, and neither model nor index is asked."""
    page = await searching.search(filters={"type": "eq", "key": "number", "value": 7})
    assert page.data == []
    assert searching.index.calls == []
    assert asked(EMBEDDINGS) == []


# ------------------------------------------------------------------------------- what is never seen


@pytest.mark.parametrize(
    "columns", [{"status": "in_progress"}, {"status": "failed"}, {"deleted_at": 1}]
)
@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
async def test_what_is_not_completed_takes_no_place(
    searching: Searching, columns: dict[str, Any], mode: str
) -> None:
    """A large file in work, whose chunks fit best, neither shows nor empties the page."""
    await searching.shelf.put("file-big", ["lamp"] * 300, **columns)
    page = await searching.search("lamp", search_mode=mode, max_num_results=2)
    assert [one.file_id for one in page.data] == ["file-lamp", "file-lamp"]
    if mode == "hybrid":
        assert page.data[0].score == pytest.approx(1)  # first among what is visible


async def test_orphans_of_the_index_never_show(searching: Searching) -> None:
    """A chunk whose row is gone isn't found, though the index still has it."""
    async with searching.database.begin() as session:
        await session.execute(delete(ChunkRow).where(ChunkRow.attachment_id.like("%file-lamp")))
    assert "file-lamp" not in await searching.files("lamp")


async def test_the_index_is_not_asked_for_ever(searching: Searching) -> None:
    """Where the index holds almost nothing but orphans, a page comes out short."""
    attachment = await searching.shelf.put("file-big", ["lamp"] * 300)
    async with searching.database.begin() as session:
        await session.execute(delete(ChunkRow).where(ChunkRow.attachment_id == attachment))
    assert (await searching.search("lamp", max_num_results=2)).data == []
    assert len(searching.index.calls) == 6


async def test_other_projects_and_deleted_stores_are_not_there(searching: Searching) -> None:
    """A store of another project, a deleted one and an unknown one look the same."""
    other = Shelf(searching.database, searching.index, store_id="vs_other", project="other")
    await other.open()
    gone = Shelf(searching.database, searching.index, store_id="vs_gone")
    await gone.open(deleted_at=1)
    for store_id in ("vs_other", "vs_gone", "vs_nope"):
        with pytest.raises(NotFound) as refused:
            await searching.search(store=store_id)
        assert refused.value.message == f"No vector store found with id '{store_id}'."


async def test_an_expired_store_says_so(searching: Searching) -> None:
    """Its files are on their way out, so it is refused rather than half searched."""
    await _set_store(searching, expires_at=1)
    with pytest.raises(InvalidRequest, match="has expired"):
        await searching.search()


async def test_an_empty_store_asks_nobody(
    gateway: InProcessGateway, database: Database, asked: Callable[[str], list[Any]]
) -> None:
    """A store without a completed file answers an empty page at once."""
    searching = Searching(gateway, database)
    await searching.shelf.open()
    await searching.shelf.put("file-1", ["a lamp"], status="in_progress")
    assert (await searching.search()).data == []
    assert searching.index.calls == []
    assert asked(EMBEDDINGS) == []


# ---------------------------------------------------------------------------------- query rewriting


async def test_a_query_is_rewritten_by_the_chat_model(
    gateway: InProcessGateway, database: Database, asked: Callable[[str], list[Any]]
) -> None:
    """What is searched for is what the model made of it, and search_query says so."""
    searching = Searching(gateway, database, rewrite_model="fake-chat")
    await searching.shelf.open()
    await searching.shelf.put("file-1", ["a lamp"])
    page = await searching.search("and where is it?", rewrite_query=True)
    assert page.search_query == ["The capital of France is Paris."]
    [sent] = asked(CHAT)
    assert sent["messages"][-1]["content"] == "and where is it?"
    [embedded] = asked(EMBEDDINGS)
    assert embedded["input"] == page.search_query


async def test_a_rewriting_model_that_fails_leaves_the_query(
    gateway: InProcessGateway, database: Database, servers: dict[str, FakeVllm]
) -> None:
    """The search goes on with the caller's words."""
    searching = Searching(gateway, database, rewrite_model="fake-chat")
    await searching.shelf.open()
    await searching.shelf.put("file-1", ["a lamp"])
    servers["chat"].behave(CHAT, faults.resets_before_head())
    page = await searching.search("lamp", rewrite_query=True)
    assert (page.search_query, len(page.data)) == (["lamp"], 1)


async def test_rewriting_without_a_model_is_refused(searching: Searching) -> None:
    """LlamaStack's words, which its clients look for."""
    with pytest.raises(InvalidRequest, match="Query rewriting is not available"):
        await searching.search(rewrite_query=True)


# ------------------------------------------------------------------------------ what is left behind


async def test_a_search_keeps_a_store_alive(searching: Searching) -> None:
    """A use moves last_active_at and what hangs on it, once a minute at most."""
    await _set_store(searching, last_active_at=5, expires_after_days=2, expires_at=2**40)
    await searching.search()
    await searching.last_active.write()
    first = await _get_store(searching)
    assert first.last_active_at > 5
    assert first.expires_at == first.last_active_at + 2 * 24 * 3600
    await _set_store(searching, last_active_at=5)
    await searching.search()
    await searching.last_active.write()
    assert (await _get_store(searching)).last_active_at == 5


async def test_uses_are_written_while_it_runs_and_at_its_end(searching: Searching) -> None:
    """The writer is a task with an owner: nothing is left when the gateway ends."""
    await _set_store(searching, last_active_at=5)
    async with searching.last_active.running():
        await searching.search()
    assert (await _get_store(searching)).last_active_at > 5


async def test_spans_of_a_search(searching: Searching, gateway: InProcessGateway) -> None:
    """A retrieval, below it the embedding and the index; content because it was opted into."""
    page = await searching.search("spans of a lamp", max_num_results=3)
    root, retrieval = await gateway.span("test"), await gateway.span("retrieval vs_1")
    call, embedding = await gateway.span("search memory"), await gateway.span(f"embeddings {MODEL}")
    assert retrieval.parent.span_id == root.context.span_id
    assert call.parent.span_id == embedding.parent.span_id == retrieval.context.span_id
    attributes = dict(retrieval.attributes)
    documents = json.loads(attributes.pop("gen_ai.retrieval.documents"))
    assert [one["score"] for one in documents] == [one.score for one in page.data]
    assert attributes == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "vs_1",
        "gen_ai.request.top_k": 3,
        "gen_ai.retrieval.query.text": "spans of a lamp",
    }
    assert call.attributes["db.response.returned_rows"] == 3


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
async def test_an_index_that_fails_fails_the_search(searching: Searching, mode: str) -> None:
    """The adapter's error reaches the caller as it is, also when two were asked at once."""
    searching.index.failure = UpstreamUnavailable("Milvus can't be reached.")
    with pytest.raises(UpstreamUnavailable, match="Milvus can't be reached"):
        await searching.search(search_mode=mode)


async def test_a_refused_query_names_the_query(
    searching: Searching, servers: dict[str, FakeVllm]
) -> None:
    """A query that is too long for the model is the caller's ``query``, whatever vLLM calls it."""
    servers["embedding"].behave(
        EMBEDDINGS, _answers({"error": {"message": "too long", "param": "input_text"}}, 400)
    )
    with pytest.raises(InvalidRequest, match="too long") as refused:
        await searching.search()
    assert refused.value.param == "query"


# -------------------------------------------------------------------------------------- raw queries


@pytest.mark.parametrize("name", ["vector_store_id", "vector_db_id"])
async def test_a_raw_query(searching: Searching, gateway: InProcessGateway, name: str) -> None:
    """LlamaStack's form: chunks with metadata and vectors, and their scores beside them."""
    request = msgspec.convert(
        {name: "vs_1", "query": [{"type": "text", "text": "the"}, "lamp"]}, QueryRequest
    )
    with Activity.of_job(gateway.application.telemetry, "test") as activity:
        answer = await searching.service.query(Principal(), activity, request)
    page = await searching.search("the lamp", max_num_results=3)
    assert answer.scores == pytest.approx([one.score for one in page.data])
    assert [one.content for one in answer.chunks] == [one.content[0].text for one in page.data]
    first = answer.chunks[0]
    assert (first.embedding_model, len(first.embedding)) == (MODEL, first.embedding_dimension)
    assert first.metadata["document_id"] == "file-lamp"
    assert first.metadata["language"] == "de"


# ------------------------------------------------------------------------------------------ support


def _answers(value: Any, status: int = 200) -> Any:
    from tests.support.upstream.answers import json_answer

    async def behaviour(exchange: Any) -> None:
        await exchange.send(json_answer(value, status))

    return behaviour


async def _set_store(searching: Searching, **columns: Any) -> None:
    async with searching.database.begin() as session:
        await session.execute(update(VectorStoreRow).values(**columns))


async def _get_store(searching: Searching) -> VectorStoreRow:
    async with searching.database.read() as session:
        row = await session.get(VectorStoreRow, "vs_1")
    assert row is not None
    return row
