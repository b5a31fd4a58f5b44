"""What a score means, and the order of hits.

A score is between 0 and 1, the higher the better, and depends on the query and the chunk alone
(and, with ``rrf``, on its places in the two lists), never on what else was asked for:

============  ====================================================================================
vector        The cosine of query and chunk; what points away from the query is 0.
keyword       ``b / (b + 4)`` of the BM25 score ``b``: one word that is rare scores about 0.5, and
              more words come ever closer to 1.
rrf           Reciprocal rank fusion of both lists, divided by the most that can be reached: 1 is
              first in both, about 0.5 first in one and absent from the other.
weighted      ``alpha * vector + (1 - alpha) * keyword`` of the scores above; a chunk that one of
              the lists doesn't have counts 0 there.
neural        What the rerank model said, cut to 0…1.
============  ====================================================================================

So a ``score_threshold`` keeps its meaning from one query to the next, but not from one of these to
another. Equal scores are ordered by what they were made of and then by the chunk's id: the same
search on the same data gives the same page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.ports import Hit

__all__ = [
    "IMPACT_FACTOR",
    "Ranked",
    "best_of",
    "blend",
    "by_keyword",
    "by_model",
    "by_vector",
    "ordered",
    "reciprocal_rank_fusion",
    "weighted",
]

IMPACT_FACTOR = 60.0
"""The usual constant of reciprocal rank fusion: the larger, the less the first places stand out."""

BM25_MIDDLE = 4.0
"""The BM25 score that becomes 0.5."""


class Ranked(Struct, frozen=True):
    """A chunk with its score of 0 to 1; ``fine`` tells chunks of the same score apart."""

    id: str
    score: float
    fine: float = 0.0


def by_vector(hits: Iterable[Hit]) -> list[Ranked]:
    """Scores of a vector search; a hit's own is its cosine."""
    return ordered(Ranked(hit.id, _within(hit.score), _finite(hit.score)) for hit in hits)


def by_keyword(hits: Iterable[Hit]) -> list[Ranked]:
    """Scores of a keyword search; a hit's own is its BM25 score."""
    return ordered(Ranked(hit.id, _of_bm25(hit.score), _finite(hit.score)) for hit in hits)


def by_model(scores: Mapping[str, float]) -> list[Ranked]:
    """Scores that a rerank model gave, by chunk id. Logits keep their order, but no distance."""
    return ordered(Ranked(id_, _within(score), _finite(score)) for id_, score in scores.items())


def reciprocal_rank_fusion(
    vector: Sequence[Ranked],
    keyword: Sequence[Ranked],
    *,
    impact_factor: float = IMPACT_FACTOR,
    vector_weight: float = 1.0,
    keyword_weight: float = 1.0,
) -> list[Ranked]:
    """Both lists as one, by the places in them alone. At least one weight is above 0.

    ``fine`` is the better of a chunk's own two scores.
    """
    total = vector_weight + keyword_weight
    scores: dict[str, float] = {}
    fine: dict[str, float] = {}
    for ranking, weight in ((vector, vector_weight), (keyword, keyword_weight)):
        if weight == 0:
            continue
        for place, one in enumerate(ranking, 1):
            share = weight / total * ((impact_factor + 1) / (impact_factor + place))
            scores[one.id] = scores.get(one.id, 0.0) + share
            fine[one.id] = max(fine.get(one.id, 0.0), one.score)
    return ordered(Ranked(id_, _within(score), fine[id_]) for id_, score in scores.items())


def weighted(vector: Sequence[Ranked], keyword: Sequence[Ranked], alpha: float) -> list[Ranked]:
    """Both lists as one, by their scores; ``alpha`` 1 is the vectors alone, 0 the words alone."""
    near = {one.id: one.score for one in vector}
    said = {one.id: one.score for one in keyword}
    return ordered(
        Ranked(
            id_,
            _within(alpha * near.get(id_, 0.0) + (1 - alpha) * said.get(id_, 0.0)),
            max(near.get(id_, 0.0), said.get(id_, 0.0)),
        )
        for id_ in near.keys() | said.keys()
    )


def blend(reranked: Sequence[Ranked], before: Sequence[Ranked], share: float) -> list[Ranked]:
    """A rerank model's scores, and what the chunks scored before; ``share`` is the model's."""
    earlier = {one.id: one.score for one in before}
    return ordered(
        Ranked(
            one.id,
            _within(share * one.score + (1 - share) * earlier.get(one.id, 0.0)),
            one.fine,
        )
        for one in reranked
    )


def best_of(rankings: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """The rankings of several queries as one: a chunk counts as it did for the query it fits."""
    if len(rankings) == 1:
        return list(rankings[0])
    best: dict[str, Ranked] = {}
    for ranking in rankings:
        for one in ranking:
            known = best.get(one.id)
            if known is None or _key(one) < _key(known):
                best[one.id] = one
    return ordered(best.values())


def ordered(ranking: Iterable[Ranked]) -> list[Ranked]:
    """Best first."""
    return sorted(ranking, key=_key)


def _key(one: Ranked) -> tuple[float, float, str]:
    return -one.score, -one.fine, one.id


def _of_bm25(score: float) -> float:
    score = max(_finite(score), 0.0)
    return score / (score + BM25_MIDDLE)


def _within(score: float) -> float:
    return min(max(_finite(score), 0.0), 1.0)


def _finite(score: float) -> float:
    """A server's arithmetic may end in NaN (a vector of zeros) or in infinity."""
    return 0.0 if math.isnan(score) else min(max(score, -1e300), 1e300)
