"""Scores are between 0 and 1, descend, and mean the same whatever else was found."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ports import Hit
from gateway.vector_stores import ranking
from gateway.vector_stores.ranking import Ranked

raw = st.floats(allow_nan=True, allow_infinity=True)
hits = st.dictionaries(st.text("abc0", min_size=1, max_size=4), raw, max_size=12).map(
    lambda found: [Hit(id=id_, score=score) for id_, score in found.items()]
)
shares = st.floats(0, 1)


def everything(vector: list[Ranked], keyword: list[Ranked], share: float) -> list[list[Ranked]]:
    return [
        vector,
        keyword,
        ranking.reciprocal_rank_fusion(vector, keyword),
        ranking.reciprocal_rank_fusion(
            vector, keyword, impact_factor=1, vector_weight=share, keyword_weight=1
        ),
        ranking.weighted(vector, keyword, share),
        ranking.blend(vector, keyword, share),
        ranking.best_of([vector, keyword]),
    ]


@given(hits, hits, shares)
def test_scores_are_bounded_and_descend(near: list[Hit], said: list[Hit], share: float) -> None:
    """Whatever an index answers, NaN and infinity too, a page is in order and within 0 and 1."""
    vector, keyword = ranking.by_vector(near), ranking.by_keyword(said)
    for one in everything(vector, keyword, share):
        scores = [entry.score for entry in one]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert len({entry.id for entry in one}) == len(one)


@given(hits, hits, shares, st.randoms())
def test_the_order_of_an_answer_does_not_matter(
    near: list[Hit], said: list[Hit], share: float, chance: random.Random
) -> None:
    """Hits of equal scores come out in one order, however the index shuffles them."""
    first = everything(ranking.by_vector(near), ranking.by_keyword(said), share)
    chance.shuffle(near)
    chance.shuffle(said)
    assert everything(ranking.by_vector(near), ranking.by_keyword(said), share) == first


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_nearer_chunk_never_scores_less(one: float, other: float) -> None:
    """The score grows with the cosine, and above 0 it is the cosine."""
    scores = {hit.id: hit.score for hit in ranking.by_vector([_hit("a", one), _hit("b", other)])}
    assert (scores["a"] > scores["b"]) <= (one > other)
    assert scores["a"] == max(one, 0)


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_better_match_of_words_never_scores_less(one: float, other: float) -> None:
    """The score grows with BM25."""
    scores = {hit.id: hit.score for hit in ranking.by_keyword([_hit("a", one), _hit("b", other)])}
    assert (scores["a"] > scores["b"]) <= (one > other)


@given(hits, st.text("xyz", min_size=1, max_size=2), st.floats(-1, 1))
def test_a_score_is_independent_of_other_hits(found: list[Hit], id_: str, score: float) -> None:
    """What else was found changes no vector or keyword score."""
    alone, more = [_hit(id_, score)], [*found, _hit(id_, score)]
    for rank in (ranking.by_vector, ranking.by_keyword):
        [expected] = rank(alone)
        assert expected in rank(more)


def test_the_words_half_way() -> None:
    """A BM25 score of 4 is 0.5, and 12 is 0.75."""
    scores = [one.score for one in ranking.by_keyword([_hit("a", 12), _hit("b", 4)])]
    assert scores == [0.75, 0.5]


def test_reciprocal_ranks() -> None:
    """First in both is 1; first in one alone is a half; the second place is 61/62 of the first."""
    vector = ranking.by_vector([_hit("both", 0.9), _hit("near", 0.8)])
    keyword = ranking.by_keyword([_hit("both", 9), _hit("said", 1)])
    fused = {one.id: one.score for one in ranking.reciprocal_rank_fusion(vector, keyword)}
    assert fused["both"] == pytest.approx(1)
    assert fused["near"] == pytest.approx(0.5 * 61 / 62)
    assert fused["said"] == pytest.approx(fused["near"])


def test_weights_of_reciprocal_ranks() -> None:
    """A weight of 0 leaves a list out; weights count by their proportion."""
    vector = ranking.by_vector([_hit("near", 0.8)])
    keyword = ranking.by_keyword([_hit("said", 1)])
    alone = ranking.reciprocal_rank_fusion(vector, keyword, keyword_weight=0)
    assert [(one.id, one.score) for one in alone] == [("near", 1.0)]
    for scale in (1, 10):
        fused = ranking.reciprocal_rank_fusion(
            vector, keyword, vector_weight=3 * scale, keyword_weight=scale
        )
        assert [one.score for one in fused] == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(("alpha", "expected"), [(1, 0.8), (0, 0.5), (0.25, 0.575)])
def test_weighted_scores(alpha: float, expected: float) -> None:
    """Alpha is the vectors' share."""
    vector = ranking.by_vector([_hit("a", 0.8)])
    keyword = ranking.by_keyword([_hit("a", 4)])
    [one] = ranking.weighted(vector, keyword, alpha)
    assert one.score == pytest.approx(expected)


def test_logits_of_a_rerank_model_keep_their_order() -> None:
    """Scores beyond 1 are cut, but the best stays first."""
    ranked = ranking.by_model({"a": 2.0, "b": 7.5, "c": -3.0, "d": math.nan})
    assert [one.id for one in ranked] == ["b", "a", "d", "c"]
    assert [one.score for one in ranked] == [1, 1, 0, 0]


def test_the_best_of_several_queries() -> None:
    """A chunk that two queries found has its better score."""
    first = ranking.by_vector([_hit("a", 0.9), _hit("b", 0.1)])
    second = ranking.by_vector([_hit("b", 0.7), _hit("c", 0.2)])
    best = ranking.best_of([first, second])
    assert [(one.id, one.score) for one in best] == [("a", 0.9), ("b", 0.7), ("c", 0.2)]


def _hit(id_: str, score: float) -> Hit:
    return Hit(id=id_, score=score)
