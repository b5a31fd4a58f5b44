"""Chunks hold to their size exactly, and are pieces of the text at the places they say."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.docling.chunking import MIN_TOKENS, chunk
from adapters.docling.reading import Piece, Reading
from adapters.docling.tokens import Tokenizer
from gateway.ports import ChunkSizes, ConversionFailed

TOKENIZER = Tokenizer()

PARTS = st.sampled_from(
    [
        "a",
        "word",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        ". ",
        "! ",
        "。",
        "中",
        "ü",
        "e\u0301",
        "😀",
        "👩‍👩‍👧",
        "👍🏽",
        "🇳🇴",
        "antidisestablishmentarianism",
        "    indented",
        "<|endoftext|>",
        "\u00a0",
        "0123456789",
        "==========",
    ]
)
TEXTS = st.lists(PARTS, max_size=120).map("".join) | st.text(max_size=200)
SIZES = st.tuples(st.integers(MIN_TOKENS, 40), st.integers(0, 40))


def reading_of(text: str) -> Reading:
    made = Reading(())
    made.text = text
    return made


def cut(reading: Reading | str, most: int, overlap: int = 0, max_chunks: int = 100_000):
    if isinstance(reading, str):
        reading = reading_of(reading)
    sizes = ChunkSizes(max_chunk_size_tokens=most, chunk_overlap_tokens=overlap)
    return list(chunk(reading, sizes, TOKENIZER, max_chunks))


@settings(max_examples=400, deadline=None)
@given(TEXTS, SIZES)
def test_every_chunk_holds_to_its_size_and_place(text, sizes):
    """Tokens are counted on the very text, and offsets give it exactly."""
    most, overlap = sizes
    for one in cut(text, most, overlap):
        assert one.text == text[one.start : one.end]
        assert one.text.strip()
        assert one.text == one.text.rstrip()
        assert one.tokens == TOKENIZER.count(one.text) <= most


@settings(max_examples=400, deadline=None)
@given(TEXTS, SIZES)
def test_no_text_is_lost(text, sizes):
    """All but white space is in some chunk, in order, and each goes further than the one before."""
    chunks = cut(text, *sizes)
    covered = set()
    for one in chunks:
        covered.update(range(one.start, one.end))
    assert all(text[place].isspace() for place in range(len(text)) if place not in covered)
    assert all(one.end < two.end for one, two in pairwise(chunks))
    assert all(one.start < two.start for one, two in pairwise(chunks))


@settings(max_examples=300, deadline=None)
@given(TEXTS, SIZES)
@example("word. 👍🏽  aaword", (10, 5))
def test_no_more_than_the_overlap_is_said_twice(text, sizes):
    """And at most half of a chunk."""
    most, overlap = sizes
    for one, two in pairwise(cut(text, most, overlap)):
        twice = text[two.start : one.end]
        assert TOKENIZER.count(twice) <= min(overlap, most // 2)


@settings(max_examples=50, deadline=None)
@given(TEXTS, SIZES)
def test_the_same_text_gives_the_same_chunks(text, sizes):
    """Embeddings of unchanged chunks can be found again."""
    assert cut(text, *sizes) == cut(text, *sizes)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["e\u0301", "👍🏽", "🇳🇴", "\r\n", "x"]), max_size=60))
def test_what_is_seen_as_one_character_stays_whole(parts):
    """Accents, skin colours and flags are not cut from what they belong to."""
    text = "".join(parts)
    places, place = {0}, 0
    for part in parts:
        place += len(part)
        places.add(place)
    for one in cut(text, 12, 6):
        assert one.end in places or text[one.end].isspace()
        assert one.start in places


def test_an_overlap_repeats_the_end_of_the_chunk_before():
    """A sentence at the seam is whole in one of the two."""
    text = " ".join(f"Sentence number {number} is about lighthouses." for number in range(60))
    chunks = cut(text, 60, 20)
    assert len(chunks) > 3
    for one, two in pairwise(chunks):
        assert two.start < one.end
        assert two.text.startswith("Sentence")
        assert one.text.endswith(".")


def test_chunks_end_where_paragraphs_end():
    """Before they end inside one."""
    paragraphs = [f"Paragraph {number} has a few words in it, no more." for number in range(20)]
    chunks = cut("\n\n".join(paragraphs), 40)
    assert [part for one in chunks for part in one.text.split("\n\n")] == paragraphs


def test_code_keeps_its_indentation():
    """A chunk that begins inside a function begins with its spaces."""
    text = "def f():\n" + "\n".join(f"    call(number={number})" for number in range(40))
    chunks = cut(text, 40, 10)
    assert all(one.text.startswith("    call") for one in chunks[1:])


def sectioned() -> Reading:
    pieces = [Piece("Handbook", 0, (1,))]
    for number in range(6):
        page = (number + 1,)
        pieces.append(Piece(f"{number} Chapter", 1, page))
        pieces.append(Piece("Many words about this. " * 12, None, page))
        pieces.append(Piece("Details", 2, page))
        pieces.append(Piece("Further words. " * 8, None, (number + 1, number + 2)))
    return Reading(pieces)


def test_chunks_follow_the_sections_of_a_document():
    """A chunk that ends with its section hands nothing on to the next."""
    chunks = cut(sectioned(), 120, 50)
    assert [one.headings[1] for one in chunks] == [f"{number} Chapter" for number in range(6)]
    assert all(one.end <= two.start for one, two in pairwise(chunks))
    assert chunks[2].text.startswith("2 Chapter")
    assert chunks[2].pages == [3, 4]
    assert chunks[0].headings == ["Handbook", "0 Chapter"]


def test_headings_are_those_of_what_is_new_in_a_chunk():
    """Not those of the overlap."""
    chunks = cut(sectioned(), 40, 15)
    details = [one for one in chunks if one.headings[-1] == "Details"]
    assert details
    assert all("Further words." in one.text for one in details)


@pytest.mark.parametrize(
    "text",
    ["a" * 400_000, " " * 400_000 + "x", "\n" * 400_000 + "x", "中" * 100_000, "e\u0301" * 50_000,
     "e" + "\u0301" * 20_000, "👩‍👩‍👧" * 10_000, "-" * 400_000],
    ids=["letters", "spaces", "lines", "Chinese", "accents", "one character", "families", "dashes"],
)  # fmt: skip
def test_odd_texts_take_no_longer(text):
    """Words without an end and characters without an end are cut anyway."""
    begun = time.process_time()
    chunks = cut(text, 100, 50)
    assert time.process_time() - begun < 8
    assert all(one.tokens <= 100 for one in chunks)
    assert chunks


def test_too_many_chunks_are_an_error_that_says_so():
    """The limit is ingestion.max_chunks."""
    assert len(cut("word " * 100, 10, 0, max_chunks=11)) == 10
    with pytest.raises(ConversionFailed, match=r"ingestion\.max_chunks") as caught:
        cut("word " * 1000, 10, 0, max_chunks=11)
    assert caught.value.code == "invalid_file"


def test_a_smaller_chunk_than_a_character_is_taken_as_the_smallest():
    """One character may have so many tokens."""
    chunks = cut("😀" * 5, 1)
    assert "".join(one.text for one in chunks) == "😀" * 5
    assert all(one.tokens <= MIN_TOKENS for one in chunks)
