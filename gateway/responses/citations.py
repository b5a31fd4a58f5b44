"""Which sources a text rests on.

A model is not asked to mark its sources: small ones don't, and none does so reliably. A sentence
cites the passage that has most of its words; a text in which no sentence does cites the best
passage of each file, at its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

__all__ = ["Passage", "Sources", "WebSource"]

SHARE = 0.6
"""Of a sentence's words that a passage has to have."""
LEAST_WORDS = 3
"""A sentence of fewer says nothing of where it is from."""
MOST_FILES = 3
"""That are cited where no sentence gives them away."""
MOST_SENTENCES = 500
MOST_SOURCES = 300
"""Every sentence is compared with each."""

_END = r".!?\u3002\uff01\uff1f"
_SENTENCE = re.compile(rf"[^\n{_END}]+(?:[.!?](?!\s)[^\n{_END}]+)*[{_END}]*")
"""A point inside of a number or a name doesn't end one; a full stop of Chinese always does."""
_WORD = re.compile(r"\w+")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
"""Scripts that put no spaces between words."""


class Passage(Struct, frozen=True, kw_only=True):
    """A chunk of a file that the model was shown."""

    file_id: str
    filename: str
    chunk_id: str
    text: str

    def citation(self, start: int, end: int) -> dict[str, Any]:  # noqa: ARG002  (one signature)
        return {
            "type": "file_citation",
            "index": end,
            "file_id": self.file_id,
            "filename": self.filename,
            "chunk_id": self.chunk_id,
        }

    @property
    def origin(self) -> str:
        return self.file_id


class WebSource(Struct, frozen=True, kw_only=True):
    """A page of the web that the model was shown."""

    url: str
    title: str
    text: str

    def citation(self, start: int, end: int) -> dict[str, Any]:
        return {
            "type": "url_citation",
            "start_index": start,
            "end_index": end,
            "title": self.title,
            "url": self.url,
        }

    @property
    def origin(self) -> str:
        return self.url


class Sources:
    """What the model was shown in a response, best first within each search."""

    def __init__(self) -> None:
        self._found: dict[int, Sequence[Passage | WebSource]] = {}
        self._words: dict[tuple[str, str], frozenset[str]] = {}

    def add(self, place: int, sources: Sequence[Passage | WebSource]) -> None:
        """``place`` is the search's in the output, for those made at once end in any order."""
        self._found[place] = sources
        for one in sources:
            key = (one.origin, one.text)
            if key not in self._words:
                self._words[key] = _words(one.text)

    def annotations(self, text: str) -> list[dict[str, Any]]:
        """The citations of a text, in the order of their places in it."""
        shown = self._shown()
        if not shown or not text.strip():
            return []
        found = []
        for place, sentence in enumerate(_SENTENCE.finditer(text)):
            if place == MOST_SENTENCES:
                break
            source = self._source_of(sentence[0], shown)
            if source is not None:
                start = sentence.start() + len(sentence[0]) - len(sentence[0].lstrip())
                found.append(source.citation(start, sentence.end()))
        return found or [one.citation(0, len(text)) for one in _best_of_each(shown)]

    def _shown(self) -> list[Passage | WebSource]:
        """What was found, each once; the latest where it is very much."""
        shown = {
            (one.origin, one.text): one
            for place in sorted(self._found)
            for one in self._found[place]
        }
        return list(shown.values())[-MOST_SOURCES:]

    def _source_of(
        self, sentence: str, shown: Sequence[Passage | WebSource]
    ) -> Passage | WebSource | None:
        words = _words(sentence)
        if len(words) < LEAST_WORDS:
            return None
        held = [len(words & self._words[one.origin, one.text]) for one in shown]
        most = max(held)
        # The first of equals ranks best.
        return shown[held.index(most)] if most / len(words) >= SHARE else None


def _best_of_each(shown: Sequence[Passage | WebSource]) -> list[Passage | WebSource]:
    first: dict[str, Passage | WebSource] = {}
    for source in shown:
        first.setdefault(source.origin, source)
    return list(first.values())[:MOST_FILES]


def _words(text: str) -> frozenset[str]:
    """The words of a text, without the shortest; of scripts without spaces, pairs of letters."""
    words: set[str] = set()
    for run in _WORD.findall(text.casefold()):
        if _DENSE.search(run):
            words.update(run[at : at + 2] for at in range(max(1, len(run) - 1)))
        elif len(run) > 2 or run.isdigit():
            words.add(run)
    return frozenset(words)
