"""Recall and mean reciprocal rank of searches over the handbook.

scores = measure(search)          # search(question) gives the documents, best first
print(table({"vector": scores}))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.quality.handbook import QUESTIONS, Question

__all__ = ["KINDS", "Score", "measure", "table"]

DEPTH = 5
KINDS = ("words", "meaning", "context")


@dataclass(frozen=True)
class Score:
    """``recall``: the share of questions whose document is among the first five chunks' ones.
    ``rank``: the mean of 1 over the place of its first chunk, 0 where it isn't among ten.
    """

    recall: float
    rank: float
    by_kind: Mapping[str, float]
    """Recall for each kind of question."""
    missed: Sequence[Question]


def measure(search: Callable[[str], Sequence[str]]) -> Score:
    """Ask every question. ``search`` gives the documents of ten chunks, repeats included."""
    places: dict[Question, int | None] = {}
    for question in QUESTIONS:
        found = list(search(question.text))
        places[question] = found.index(question.document) if question.document in found else None
    return Score(
        recall=_share([_is_found(place) for place in places.values()]),
        rank=sum(1 / (place + 1) for place in places.values() if place is not None) / len(places),
        by_kind={
            kind: _share([_is_found(place) for one, place in places.items() if one.kind == kind])
            for kind in KINDS
        },
        missed=[one for one, place in places.items() if not _is_found(place)],
    )


def table(scores: Mapping[str, Score]) -> str:
    """Markdown, a row for each way of searching."""
    lines = [
        f"| search | recall@{DEPTH} | MRR | " + " | ".join(KINDS) + " |",
        "| --- " * (3 + len(KINDS)) + "|",
    ]
    for name, score in scores.items():
        cells = [score.recall, score.rank, *(score.by_kind[kind] for kind in KINDS)]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def _is_found(place: int | None) -> bool:
    return place is not None and place < DEPTH


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)
