"""Searching a vector store.

One SQL query finds the store, one finds the files where there is a filter, the index answers ids
and scores, and one SQL query makes chunks of them; what isn't visible in the database drops out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from opentelemetry.trace import SpanKind

from gateway.database.identifiers import now
from gateway.embeddings.embedder import Embedder
from gateway.errors import GatewayError, InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import Hit, VectorIndex
from gateway.profile import Profile
from gateway.settings import SearchSettings
from gateway.vector_stores import ranking
from gateway.vector_stores.hits import FoundChunk, HitRepository, SearchedStore
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.ranking import Ranked
from gateway.vector_stores.reranking import Reranker
from gateway.vector_stores.rewriting import QueryRewriter
from gateway.vector_stores.search_answers import queried_chunk, search_results
from gateway.vector_stores.search_plan import SearchPlan, plan_query, plan_search
from gateway.vector_stores.search_schemas import (
    QueryAnswer,
    QueryRequest,
    SearchPage,
    SearchRequest,
)

__all__ = ["SearchService"]

CANDIDATES_PER_RESULT = 4
"""How much deeper than the page the lists go that are fused or reranked."""
MOST_CANDIDATES = 200
ROUNDS = 6
"""How often the index is asked again where hits turn out to be invisible, each time for more."""
DEEPEST = 16_384
MAX_CONTENT_CHARACTERS = 64 * 1024

_Search = Callable[[], Awaitable[list[Hit]]]


class Found(Struct, frozen=True, kw_only=True):
    """What a search comes to: the queries as they were searched, and the hits, best first."""

    store: SearchedStore
    queries: list[str]
    ranking: list[Ranked] = []
    chunks: dict[str, FoundChunk] = {}


class _Question(Struct, frozen=True, kw_only=True):
    """What the index is asked: a vector for each query, unless words alone are searched."""

    store: SearchedStore
    plan: SearchPlan
    queries: list[str]
    vectors: list[Sequence[float]]


class SearchService:
    def __init__(
        self,
        *,
        hits: HitRepository,
        index: VectorIndex,
        embedder: Embedder,
        rewriter: QueryRewriter,
        reranker: Reranker,
        last_active: LastActive,
        settings: SearchSettings,
        profile: Profile,
    ) -> None:
        self._hits = hits
        self._index = index
        self._embedder = embedder
        self._rewriter = rewriter
        self._reranker = reranker
        self._last_active = last_active
        self._settings = settings
        self._profile = profile

    async def search(
        self, principal: Principal, activity: Activity, store_id: str, request: SearchRequest
    ) -> SearchPage:
        """A page of chunks, best first; there is never a second page.

        Raises ``InvalidRequest`` for what is asked wrongly or what the store can't do, the
        profile's error for a store that isn't there, and ``UpstreamError``.
        """
        plan = plan_search(request, self._settings)
        model = self._rerank_model(principal, plan, "ranking_options.model")
        if plan.rewrite:
            self._rewriter.check()
        found = await self._find(principal, activity, store_id, plan, model)
        return SearchPage(
            search_query=found.queries,
            data=search_results(self._profile, found.ranking, found.chunks),
        )

    async def check(self, principal: Principal, store_id: str, request: SearchRequest) -> None:
        """Raises as ``search`` does for what can be known without searching."""
        plan = plan_search(request, self._settings)
        self._rerank_model(principal, plan, "ranking_options.model")
        _possible(plan, await self._store(principal, store_id))

    async def query(
        self, principal: Principal, activity: Activity, request: QueryRequest
    ) -> QueryAnswer:
        """LlamaStack's raw query: chunks with their vectors, and scores. Raises as ``search``."""
        store_id = request.vector_store_id or request.vector_db_id
        if store_id is None:
            raise InvalidRequest(
                "Missing required parameter: 'vector_store_id'.",
                param="vector_store_id",
                code="missing_required_parameter",
            )
        plan = plan_query(request, self._settings)
        model = self._rerank_model(principal, plan, "params.reranker_params.model")
        found = await self._find(principal, activity, store_id, plan, model)
        ids = [one.id for one in found.ranking]
        vectors = await self._index.vectors(found.store.index, ids) if ids else {}
        name, dimension = found.store.embedding_model, found.store.index.dimension
        return QueryAnswer(
            chunks=[
                queried_chunk(found.chunks[id_], vectors.get(id_, ()), name, dimension)
                for id_ in ids
            ],
            scores=[one.score for one in found.ranking],
        )

    async def _find(
        self,
        principal: Principal,
        activity: Activity,
        store_id: str,
        plan: SearchPlan,
        rerank_model: str | None,
    ) -> Found:
        store = await self._store(principal, store_id)
        self._last_active.note(principal.project, store_id)
        plan = _possible(plan, store)
        attributes = {
            semconv.OPERATION: "retrieval",
            semconv.DATA_SOURCE_ID: store_id,
            semconv.REQUEST_TOP_K: plan.limit,
        }
        with activity.step(f"retrieval {store_id}", attributes=attributes) as step:
            found = await self._retrieve(step, store, plan, rerank_model)
            if step.keeps_content:
                step.attributes[semconv.RETRIEVAL_QUERY] = _cut("\n".join(found.queries))
                step.attributes[semconv.RETRIEVAL_DOCUMENTS] = _documents(found)
        return found

    async def _store(self, principal: Principal, store_id: str) -> SearchedStore:
        store = await self._hits.store(principal.project, store_id)
        if store is None:
            raise self._profile.unknown_in_stores(
                f"No vector store found with id '{store_id}'.", param="vector_store_id"
            )
        if store.expires_at is not None and store.expires_at <= now():
            raise InvalidRequest(
                f"The vector store '{store_id}' has expired and can't be searched any more.",
                param="vector_store_id",
                code="vector_store_expired",
            )
        return store

    async def _retrieve(
        self, step: Activity, store: SearchedStore, plan: SearchPlan, rerank_model: str | None
    ) -> Found:
        if not store.has_files:
            return Found(store=store, queries=plan.queries)
        within: list[str] | None = None
        if plan.filter is not None:
            where = store.index
            matching, all_match = await self._hits.attachments(
                where.project, where.store_id, plan.filter
            )
            if not matching:
                return Found(store=store, queries=plan.queries)
            within = None if all_match else matching
        queries = plan.queries
        if plan.rewrite:
            queries = await self._rewriter.rewrite(step, queries)
        vectors = [] if plan.mode == "keyword" else await self._embed(step, store, queries)
        question = _Question(store=store, plan=plan, queries=queries, vectors=vectors)
        ranked, chunks = await self._candidates(step, question, within)
        if rerank_model is not None:
            ranked = await self._rerank(step, rerank_model, question, ranked, chunks)
        ranked = [one for one in ranked if one.score >= plan.threshold][: plan.limit]
        return Found(store=store, queries=queries, ranking=ranked, chunks=chunks)

    async def _embed(
        self, step: Activity, store: SearchedStore, queries: Sequence[str]
    ) -> list[Sequence[float]]:
        try:
            vectors = await self._embedder.embed(step, store.embedding_model, queries)
        except InvalidRequest as error:
            error.param = "query"  # the caller never sent the field that the model server names
            raise
        length = len(vectors[0])
        if length != store.index.dimension:
            raise InvalidRequest(
                f"The embedding model '{store.embedding_model}' now makes vectors of {length} "
                f"numbers; this vector store has vectors of {store.index.dimension}.",
                code="embedding_dimension_changed",
            )
        return vectors

    async def _candidates(
        self, step: Activity, question: _Question, within: list[str] | None
    ) -> tuple[list[Ranked], dict[str, FoundChunk]]:
        """The best visible chunks and their scores before any reranking.

        Where hits turn out to be invisible (of files in work, or deleted a moment ago), so that
        the page isn't full, the index is asked again for more of what is visible.
        """
        where, plan = question.store.index, question.plan
        wanted = plan.limit
        if plan.neural or plan.mode == "hybrid":
            wanted = max(wanted, min(CANDIDATES_PER_RESULT * wanted, MOST_CANDIDATES))
        depth = wanted
        for _ in range(ROUNDS):
            lists = await self._ask(step, question, depth, within)
            ids = list({hit.id: None for hits in lists for hit in hits})
            chunks = await self._hits.chunks(where.project, where.store_id, ids)
            # What is invisible takes no place in a ranking either.
            seen = [[hit for hit in hits if hit.id in chunks] for hits in lists]
            starved = any(
                len(hits) >= depth and len(left) < wanted
                for hits, left in zip(lists, seen, strict=True)
            )
            if not starved or depth >= DEEPEST:
                break
            visible = await self._hits.visible(where.project, where.store_id)
            within = visible if within is None else sorted({*within} & {*visible})
            depth = min(2 * depth, DEEPEST)
        return _rank(plan, seen), chunks

    async def _ask(
        self, step: Activity, question: _Question, depth: int, within: list[str] | None
    ) -> list[list[Hit]]:
        """The hits of each query: by vector, by words, or both, one after the other."""
        index, where = self._index, question.store.index
        asked: list[_Search] = []
        for number, query in enumerate(question.queries):
            if question.vectors:
                asked.append(partial(index.search, where, question.vectors[number], depth, within))
            if question.plan.mode != "vector":
                asked.append(partial(index.search_text, where, query, depth, within))
        return await _together([self._timed(step, search) for search in asked])

    async def _timed(self, step: Activity, search: _Search) -> list[Hit]:
        """One search of the index as a span of its own."""
        engine = (await self._index.features()).engine.partition(" ")[0].lower()
        attributes = {semconv.DB_SYSTEM: engine, semconv.DB_OPERATION: "search"}
        with step.step(f"search {engine}", kind=SpanKind.CLIENT, attributes=attributes) as call:
            hits = await search()
            call.attributes[semconv.DB_ROWS] = len(hits)
        return hits

    async def _rerank(
        self,
        step: Activity,
        model: str,
        question: _Question,
        before: Sequence[Ranked],
        chunks: dict[str, FoundChunk],
    ) -> list[Ranked]:
        before = before[: max(question.plan.limit, MOST_CANDIDATES)]
        texts = [chunks[one.id].full_text for one in before]
        scores = await self._reranker.scores(step, model, " ".join(question.queries), texts)
        reranked = ranking.by_model(
            {one.id: score for one, score in zip(before, scores, strict=True)}
        )
        if question.plan.neural_share < 1:
            return ranking.blend(reranked, before, question.plan.neural_share)
        return reranked

    def _rerank_model(self, principal: Principal, plan: SearchPlan, param: str) -> str | None:
        if not plan.neural:
            return None
        return self._reranker.model(plan.rerank_model, param, principal.models)


def _possible(plan: SearchPlan, store: SearchedStore) -> SearchPlan:
    """The plan as this store can do it. Raises ``InvalidRequest`` where it was asked for words."""
    if store.index.keyword or plan.mode == "vector":
        return plan
    if plan.mode_is_default:
        return msgspec.structs.replace(plan, mode="vector")
    raise InvalidRequest(
        f"This vector store can't be searched by '{plan.mode}': it was made without full-text "
        "search, which needs Milvus 2.5 or newer, or Milvus Lite 3. Search it by 'vector'.",
        param="search_mode",
        code="search_mode_not_supported",
    )


def _rank(plan: SearchPlan, lists: Sequence[Sequence[Hit]]) -> list[Ranked]:
    """The lists of ``_ask`` as one ranking."""
    if plan.mode == "vector":
        return ranking.best_of([ranking.by_vector(hits) for hits in lists])
    if plan.mode == "keyword":
        return ranking.best_of([ranking.by_keyword(hits) for hits in lists])
    pairs = zip(lists[0::2], lists[1::2], strict=True)
    return ranking.best_of(
        [_fuse(plan, ranking.by_vector(near), ranking.by_keyword(said)) for near, said in pairs]
    )


def _fuse(plan: SearchPlan, near: Sequence[Ranked], said: Sequence[Ranked]) -> list[Ranked]:
    if plan.fusion == "weighted":
        share = plan.vector_weight / (plan.vector_weight + plan.keyword_weight)
        return ranking.weighted(near, said, share)
    return ranking.reciprocal_rank_fusion(
        near,
        said,
        impact_factor=plan.impact_factor,
        vector_weight=plan.vector_weight,
        keyword_weight=plan.keyword_weight,
    )


async def _together(
    asked: Sequence[Coroutine[Any, Any, list[Hit]]],
) -> list[list[Hit]]:
    """All of them at once; the first that fails cancels the others."""
    if len(asked) == 1:
        return [await asked[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in asked]
    except* GatewayError as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _documents(found: Found) -> str:
    ids = [{"id": found.chunks[one.id].name, "score": one.score} for one in found.ranking]
    return msgspec.json.encode(ids).decode()


def _cut(text: str) -> str:
    return text[:MAX_CONTENT_CHARACTERS]
