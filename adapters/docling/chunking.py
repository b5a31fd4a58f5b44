"""Cuts text into chunks that hold exactly to a number of tokens.

A window moves over the document's plain text. It ends, in this order, where a section, an item
(a paragraph, a list, a table), a paragraph, a line, a sentence or a word ends, and never inside
what is seen as one character. The next window begins up to ``chunk_overlap_tokens`` before that
end and never more than half of the chunk, except where that ended with its section: then there is
nothing to hand on.

Every chunk is ``text[start:end]`` of the plain text, and all of the text but white space between
chunks is in one chunk at least.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from adapters.docling.reading import Reading
from adapters.docling.tokens import MAX_CHARACTERS, Tokenizer
from gateway.ports import Chunk, ChunkSizes, ConversionFailed

__all__ = ["MIN_TOKENS", "Chunker", "chunk"]

MIN_TOKENS = 4
"""A single character may need so many."""

_CHARACTERS_PER_TOKEN = 8
"""The longest chunk in characters for each token that is allowed. English has 4 to 5."""
_FULL_ENOUGH = 0.5
"""A better place to end is only taken where the chunk is this full."""
_FULL_ENOUGH_FOR_A_SECTION = 0.35

_WORD = re.compile(r"\S")
_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")
_LINE_END = re.compile(r"\n")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]")  # noqa: RUF001  (CJK marks)
_WORD_END = re.compile(r"\s+")
_ENDS = (_PARAGRAPH_END, _LINE_END, _SENTENCE_END)
_ZERO_WIDTH_JOINER = "\u200d"
_LONGEST_CLUSTER = 64


def chunk(
    reading: Reading, sizes: ChunkSizes, tokenizer: Tokenizer, max_chunks: int
) -> Iterator[Chunk]:
    """The chunks of a document, in reading order.

    Raises ``ConversionFailed`` when there are more than ``max_chunks``.
    """
    chunker = Chunker(reading.text, tokenizer, sizes, reading.sections, reading.items)
    fresh = 0
    for number, (start, end) in enumerate(chunker, 1):
        if number > max_chunks:
            raise ConversionFailed(
                "invalid_file",
                f"The file makes more than {max_chunks} chunks, which is ingestion.max_chunks. "
                "Split it, or use larger chunks with less overlap.",
            )
        text = reading.text[start:end]
        yield Chunk(
            text=text,
            tokens=tokenizer.count(text),
            headings=reading.headings_at(max(start, fresh), end),
            pages=reading.pages_between(start, end),
            start=start,
            end=end,
        )
        fresh = end


class Chunker:
    """Iterates over ``(start, end)`` of the chunks of ``text``.

    ``sections`` are the places where a heading begins and ``items`` those where another item
    begins, both ascending. Less than ``MIN_TOKENS`` for a chunk is taken as that, and overlap is at
    most half of a chunk, so that each goes further than the one before.
    """

    def __init__(
        self,
        text: str,
        tokenizer: Tokenizer,
        sizes: ChunkSizes,
        sections: Sequence[int] = (),
        items: Sequence[int] = (),
    ) -> None:
        self._text = text
        self._tokenizer = tokenizer
        self._most = max(sizes.max_chunk_size_tokens, MIN_TOKENS)
        self._overlap = max(0, min(sizes.chunk_overlap_tokens, self._most // 2))
        self._view = min(self._most * _CHARACTERS_PER_TOKEN, MAX_CHARACTERS)
        self._sections = sections
        self._items = items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, done = 0, 0
        while (word := _WORD.search(self._text, done)) is not None:
            start = self._without_blank_lines(max(start, 0), word.start(), done)
            end = self._end(start, word.start())
            if end <= word.start():  # the overlap leaves no room for anything new
                start = word.start()
                end = self._end(start, start)
            yield start, end
            done = end
            start = self._next_start(start, end)

    def _without_blank_lines(self, start: int, word: int, done: int) -> int:
        """``start``, but after white space; the indentation of a line of code stays."""
        first = _WORD.search(self._text, start)
        assert first is not None, "there is a word at or after done, so after start"
        line = self._text.rfind("\n", max(start - 1, 0), first.start())
        if line < 0 or first.start() - line > _LONGEST_CLUSTER:
            return first.start()
        return line + 1 if first.start() < word or line + 1 >= done else word

    def _end(self, start: int, word: int) -> int:
        """Where the chunk from ``start`` ends: as far on as tokens allow, at the best place.

        ``word`` is the first new character; what is returned is not beyond it where not even that
        fits.
        """
        view = self._text[start : start + self._view]
        tokens = self._tokenizer.encode(view)
        if len(tokens) <= self._most:
            limit = start + len(view)
            if limit == len(self._text) and self._fits(start, limit):
                return self._trimmed(start, limit)
        else:
            limit = start + self._tokenizer.length(tokens[: self._most])
        fewer = 1
        while limit > word:
            limit = self._whole_character(limit, start)
            end = self._trimmed(start, self._best(start, word + 1, limit))
            if self._fits(start, end):
                return end
            # Cut elsewhere, the same text may be another token or two.
            keep = max(1, min(len(tokens), self._most) - fewer)
            limit = min(limit - 1, start + self._tokenizer.length(tokens[:keep]))
            fewer *= 2
        return start if word > start else self._smallest(start)

    def _smallest(self, start: int) -> int:
        """The longest piece of a single huge character that fits; one code point always does."""
        end = start + 1
        while end < len(self._text) and self._fits(start, end + 1) and end - start < self._most:
            end += 1
        return end

    def _fits(self, start: int, end: int) -> bool:
        return self._tokenizer.count(self._text[start:end].rstrip()) <= self._most

    def _trimmed(self, start: int, end: int) -> int:
        return start + len(self._text[start:end].rstrip())

    def _best(self, start: int, least: int, limit: int) -> int:
        """The best end in ``least`` to ``limit``; white space after that is cut off anyway."""
        least = max(least, start + 1)
        if limit <= least:
            return limit
        for _ in range(_LONGEST_CLUSTER):
            if limit < len(self._text) and self._text[limit].isspace():
                limit += 1
        section = max(least, start + int((limit - start) * _FULL_ENOUGH_FOR_A_SECTION))
        if (end := _last(self._sections, section, limit)) is not None:
            return end
        full = max(least, start + int((limit - start) * _FULL_ENOUGH))
        if (end := _last(self._items, full, limit)) is not None:
            return end
        for pattern in _ENDS:
            if (end := self._last_match(pattern, full, limit)) is not None:
                return end
        if (end := self._last_match(_WORD_END, least, limit)) is not None:
            return end
        return limit

    def _last_match(self, pattern: re.Pattern[str], least: int, limit: int) -> int | None:
        found = None
        for match in pattern.finditer(self._text, least, limit):
            found = match.end()
        return found

    def _next_start(self, start: int, end: int) -> int:
        """Where the next chunk begins: at most the overlap before ``end``."""
        if not self._overlap:
            return end
        following = _WORD.search(self._text, end)
        if following is None or self._is_section(end, following.start()):
            return end
        text = self._text[start:end]
        tokens = self._tokenizer.encode(text)[-self._overlap :]
        earliest = max(end - self._tokenizer.length(tokens), start + (end - start + 1) // 2)
        middle = earliest + (end - earliest) // 2
        candidates = []
        position = bisect_left(self._items, earliest)
        if position < len(self._items) and self._items[position] <= middle:
            candidates.append(self._items[position])
        for pattern in _ENDS:
            if (match := pattern.search(self._text, max(earliest - 2, start), middle)) is not None:
                candidates.append(match.end())
                break
        if (match := _WORD_END.search(self._text, max(earliest - 1, start), end)) is not None:
            candidates.append(match.end())
        candidates.append(self._next_whole_character(earliest, end))
        for candidate in candidates:
            # Tokens are counted of what is said twice in the end, which is without that space.
            begin = self._without_blank_lines(candidate, following.start(), end)
            if earliest <= begin < end and self._overlaps_little(begin, end):
                return begin
        return self._later_word(earliest, end)

    def _later_word(self, earliest: int, end: int) -> int:
        for number, match in enumerate(_WORD_END.finditer(self._text, earliest, end)):
            if self._overlaps_little(match.end(), end):
                return match.end()
            if number > 8:
                break
        return end

    def _overlaps_little(self, start: int, end: int) -> bool:
        return self._tokenizer.count(self._text[start:end]) <= self._overlap

    def _is_section(self, end: int, word: int) -> bool:
        position = bisect_left(self._sections, end)
        return position < len(self._sections) and self._sections[position] <= word

    def _whole_character(self, position: int, least: int) -> int:
        """``position``, or the nearest place before it that is not inside a visible character."""
        for back in range(_LONGEST_CLUSTER):
            place = position - back
            if place <= least + 1:
                break
            if not _inside(self._text, place):
                return place
        return position

    def _next_whole_character(self, position: int, most: int) -> int:
        while position < most and _inside(self._text, position):
            position += 1
        return position


def _last(places: Sequence[int], least: int, most: int) -> int | None:
    position = bisect_right(places, most) - 1
    if position < 0 or places[position] < least:
        return None
    return places[position]


def _inside(text: str, place: int) -> bool:  # noqa: PLR0911  (one case after the other)
    """Whether ``place`` is between code points that are seen as one character."""
    if place <= 0 or place >= len(text):
        return False
    before, after = text[place - 1], text[place]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if unicodedata.category(after)[0] == "M" or after == _ZERO_WIDTH_JOINER:
        return True
    if before == _ZERO_WIDTH_JOINER or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    if "\u1160" <= after <= "\u11ff":  # vowels and finals of Hangul
        return True
    if _is_flag(before) and _is_flag(after):
        first = place
        while first > 0 and _is_flag(text[first - 1]):
            first -= 1
        return (place - first) % 2 == 1
    return False


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
