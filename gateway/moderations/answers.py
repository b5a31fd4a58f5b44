"""A guard model's answer, as far as it is a verdict: its text, and how sure of it the model was."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.errors import UpstreamError
from gateway.http.validation import NOT_JSON

__all__ = ["GuardAnswer", "no_verdict", "read_guard_answer"]

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_NO_LETTERS = re.compile(r"[^a-z]+")
_SHORTEST_PIECE = 2
"""Of a word that the tokenizer cuts: ``un`` and ``safe``."""


class TokenChance(Struct, frozen=True):
    token: str
    logprob: float


class TokenChoice(TokenChance, frozen=True):
    top_logprobs: list[TokenChance] = []


class _Logprobs(Struct, frozen=True):
    content: list[TokenChoice] | None = None


class _Message(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    message: _Message
    logprobs: _Logprobs | None = None


class _Completion(Struct, frozen=True):
    choices: list[_Choice]


_completions = msgspec.json.Decoder(_Completion)


class GuardAnswer(Struct, frozen=True, kw_only=True):
    """``tokens`` is empty where the server gives no log probabilities."""

    text: str
    tokens: Sequence[TokenChoice] = ()

    def probability(self, word: str, other: str) -> float | None:
        """How likely ``word`` was, where the model chose between the two; in small letters.

        ``None`` where nothing is known of that choice.
        """
        for token in self.tokens:
            chances = token.top_logprobs or [token]
            if _begins(token.token, word) == _begins(token.token, other):
                continue
            likely = sum(_chance(one) for one in chances if _begins(one.token, word))
            unlikely = sum(_chance(one) for one in chances if _begins(one.token, other))
            total = likely + unlikely
            return likely / total if total > 0 else None
        return None


def read_guard_answer(body: bytes) -> GuardAnswer:
    """Raises ``UpstreamError`` for what isn't a chat completion."""
    try:
        choices = _completions.decode(body).choices
    except NOT_JSON as error:
        raise UpstreamError(f"The guard model's answer is no completion: {error}") from None
    if not choices:
        raise UpstreamError("The guard model's answer has no choices.")
    [choice, *_] = choices
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    return GuardAnswer(
        text=_THOUGHTS.sub("", choice.message.content or "").strip(), tokens=logprobs or ()
    )


def no_verdict(answer: GuardAnswer, expected: str) -> UpstreamError:
    """For an answer that says neither the one nor the other. It isn't shown: it may repeat what
    was asked.
    """
    what = "no text" if not answer.text else "something else"
    return UpstreamError(f"The guard model answered with {what} where {expected} was due.")


def _begins(token: str, word: str) -> bool:
    piece = _NO_LETTERS.sub("", token.lower())
    return piece == word or (len(piece) >= _SHORTEST_PIECE and word.startswith(piece))


def _chance(token: TokenChance) -> float:
    return math.exp(min(token.logprob, 0.0))
