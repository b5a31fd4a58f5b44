"""What a guard says of a conversation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct, field

__all__ = ["SAFE", "Judgement", "merged"]


class Judgement(Struct, frozen=True, kw_only=True):
    """All names are the guard's own.

    ``violated`` may be empty where a guard flags without saying for what. ``scores`` are from 0 to
    1, and may hold names that aren't violated.
    """

    flagged: bool
    violated: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    def without(self, excluded: Collection[str]) -> Judgement:
        """The same, as if nobody cared for these."""
        if not excluded:
            return self
        kept = [name for name in self.violated if name not in excluded]
        return Judgement(
            flagged=self.flagged and (bool(kept) or not self.violated),
            violated=kept,
            scores={name: score for name, score in self.scores.items() if name not in excluded},
        )


SAFE = Judgement(flagged=False)


def merged(judgements: Sequence[Judgement]) -> Judgement:
    """Several judgements of the same conversation as one."""
    if len(judgements) == 1:
        return judgements[0]
    scores: dict[str, float] = {}
    for one in judgements:
        for name, score in one.scores.items():
            scores[name] = max(score, scores.get(name, 0.0))
    violated = dict.fromkeys(name for one in judgements for name in one.violated)
    return Judgement(
        flagged=any(one.flagged for one in judgements), violated=list(violated), scores=scores
    )
