"""How much of a small handbook is found: real embeddings, real words, on Milvus Lite.

python -m pytest -s tests/real/test_retrieval.py        # prints the table
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.quality.handbook import DOCUMENTS, QUESTIONS
from tests.quality.measure import Score, measure, table
from tests.real.conftest import RealVllm
from tests.support.gateway import GatewayProcess

SIZES = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}
"""Small, so that a short document has several chunks."""

FLOORS = {"vector": 0.9, "keyword": 0.68, "hybrid": 0.85, "hybrid, weighted": 0.9}
"""Of recall@5, a little below what was measured (0.98, 0.76, 0.93, 0.98)."""

CONTEXTUAL_FLOOR = 0.85
WAYS: dict[str, dict[str, Any]] = {
    "vector": {"search_mode": "vector"},
    "keyword": {"search_mode": "keyword"},
    "hybrid": {"search_mode": "hybrid"},
    "hybrid, weighted": {
        "search_mode": "hybrid",
        "ranking_options": {"ranker": "weighted", "alpha": 0.7},
    },
}
STATIC = {"type": "static", "static": SIZES}


@pytest.fixture(scope="module")
def client(vllm_chat: RealVllm, vllm_embeddings: RealVllm) -> Iterator[OpenAI]:
    config = {
        "discover": [vllm_chat.url, vllm_embeddings.url],
        "embedding": {"default_model": vllm_embeddings.model},
    }
    models = [vllm_chat.model, vllm_embeddings.model]
    with (
        GatewayProcess(config, models=models) as gateway,
        OpenAI(base_url=gateway.base_url, api_key="none", timeout=120) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def files(client: OpenAI) -> dict[str, str]:
    """The ids of the uploaded handbook, by name."""
    return {
        name: client.files.create(file=(name, text.encode()), purpose="assistants").id
        for name, text in DOCUMENTS.items()
    }


@pytest.fixture(scope="module")
def scores(client: OpenAI, files: dict[str, str]) -> dict[str, Score]:
    """The handbook, searched in each way."""
    store = shelve(client, dict.fromkeys(files.values(), STATIC))
    scores = {name: measure(searcher(client, store, body)) for name, body in WAYS.items()}
    show(scores)
    return scores


@pytest.fixture(scope="module")
def contextual(client: OpenAI, files: dict[str, str], vllm_chat: RealVllm) -> dict[str, Score]:
    """The same where a chat model, as small as they get, wrote about each chunk of a runbook."""
    strategy = {"type": "contextual", "contextual": {**SIZES, "model_id": vllm_chat.model}}
    chosen = {
        file_id: strategy if "# Error codes" in DOCUMENTS[name] else STATIC
        for name, file_id in files.items()
    }
    store = shelve(client, chosen)
    scores = {
        f"{name}, contextual": measure(searcher(client, store, WAYS[name]))
        for name in ("vector", "hybrid, weighted")
    }
    show(scores)
    return scores


def show(scores: dict[str, Score]) -> None:
    print(f"\n{len(DOCUMENTS)} documents, {len(QUESTIONS)} questions\n\n{table(scores)}\n")
    for name, score in scores.items():
        print(f"{name} misses: {[one.text for one in score.missed]}")


def shelve(client: OpenAI, files: dict[str, dict[str, Any]]) -> str:
    """A store with these files, chunked as it says beside them, all of them completed."""
    store = client.vector_stores.create(name="handbook")
    batch = client.vector_stores.file_batches.create(
        store.id,
        files=[
            {"file_id": file_id, "chunking_strategy": chunking}  # type: ignore[typeddict-item]
            for file_id, chunking in files.items()
        ],
    )
    batch = client.vector_stores.file_batches.poll(batch.id, vector_store_id=store.id)
    if batch.file_counts.completed != len(files):
        failed = client.vector_stores.files.list(store.id, filter="failed", limit=100).data
        raise AssertionError([one.last_error for one in failed])
    return store.id


def searcher(client: OpenAI, store_id: str, body: dict[str, Any]) -> Callable[[str], list[str]]:
    def search(question: str) -> list[str]:
        page = client.vector_stores.search(store_id, query=question, extra_body=body)
        return [one.filename for one in page.data]

    return search


@pytest.mark.parametrize("way", FLOORS)
def test_most_answers_are_found(scores: dict[str, Score], way: str) -> None:
    """The document that answers a question is among those of the first five chunks."""
    assert scores[way].recall >= FLOORS[way], table(scores)


def test_hybrid_is_as_good_as_the_better_half(scores: dict[str, Score]) -> None:
    """Searching by both loses little against either alone: next to nothing with weights, and
    somewhat more with ranks alone, to which the words count as much as the vectors."""
    best = max(scores["vector"].recall, scores["keyword"].recall)
    assert scores["hybrid, weighted"].recall >= best - 0.03, table(scores)
    assert scores["hybrid"].recall >= best - 0.08, table(scores)


@pytest.mark.skipif(
    "RETRIEVAL" not in os.environ, reason="a model writes for minutes: `make retrieval` has it"
)
def test_written_contexts_do_no_harm(contextual: dict[str, Score]) -> None:
    """What a model wrote about the chunks helps, or at least doesn't hide them."""
    assert min(one.recall for one in contextual.values()) >= CONTEXTUAL_FLOOR, table(contextual)


def test_codes_and_names_are_found_by_words(scores: dict[str, Score]) -> None:
    """What an embedding doesn't know, full-text search does, and hybrid with it."""
    assert scores["keyword"].by_kind["words"] >= 0.9, table(scores)
    assert scores["hybrid"].by_kind["words"] >= 0.9, table(scores)
