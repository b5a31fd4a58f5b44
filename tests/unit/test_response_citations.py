"""A sentence cites the passage that has its words, and nothing where none has."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.responses.citations import MOST_FILES, MOST_SOURCES, Passage, Sources, WebSource

LAMP = "The lamp of the lighthouse turns at night, and ships see it from afar."
OIL = "Oil for the lamp is kept below the stairs."


def passage(text: str, file: str = "file-1", chunk: str = "c") -> Passage:
    return Passage(file_id=file, filename=f"{file}.txt", chunk_id=chunk, text=text)


def sources(*found: Passage | WebSource) -> Sources:
    made = Sources()
    made.add(0, found)
    return made


def cited(made: Sources, text: str) -> list[tuple[str, str]]:
    """Chunks, and what stands before each citation."""
    return [(one["chunk_id"], text[: one["index"]]) for one in made.annotations(text)]


def test_a_citation_has_openais_fields_and_the_chunk() -> None:
    """It stands at the end of its sentence."""
    [one] = sources(passage(LAMP)).annotations("The lamp turns at night.")
    assert one == {
        "type": "file_citation",
        "index": 24,
        "file_id": "file-1",
        "filename": "file-1.txt",
        "chunk_id": "c",
    }


def test_a_page_of_the_web_is_cited_by_its_place() -> None:
    """From the sentence's first letter to its end."""
    page = WebSource(url="http://a", title="A", text=LAMP)
    text = "Well. The lamp turns at night. So?"
    [one] = sources(page).annotations(text)
    assert text[one["start_index"] : one["end_index"]] == "The lamp turns at night."
    assert (one["type"], one["url"], one["title"]) == ("url_citation", "http://a", "A")


def test_each_sentence_has_its_own_source() -> None:
    """And one of something else has none."""
    made = sources(passage(LAMP, chunk="a"), passage(OIL, chunk="b"))
    text = "The lighthouse turns at night. Boats are made of wood. Oil is kept below the stairs!"
    assert cited(made, text) == [
        ("a", "The lighthouse turns at night."),
        ("b", text),
    ]


@pytest.mark.parametrize("text", ["Yes.", "The lamp.", "", " \n", "...", "?!"])
def test_what_says_too_little_cites_no_sentence(text: str) -> None:
    """A few words are in everything; the whole text then rests on the files, if it says a word."""
    found = sources(passage(LAMP)).annotations(text)
    assert [one["index"] for one in found] == ([len(text)] if text.strip() else [])


def test_without_sources_nothing_is_cited() -> None:
    """Also with a search that found nothing."""
    assert Sources().annotations(LAMP) == []
    assert sources().annotations(LAMP) == []


def test_numbers_and_addresses_do_not_end_a_sentence() -> None:
    """A point inside of a word is none."""
    made = sources(passage("Version 1.5 of example.org costs 3.14 euros.", chunk="a"))
    text = "Version 1.5 of example.org costs 3.14 euros"
    assert cited(made, text) == [("a", text)]


def test_scripts_without_spaces_are_read_too() -> None:
    """By pairs of letters, and with their own full stops."""
    made = sources(
        passage("灯台の灯りは夜に回ります。", chunk="a"), passage("船は正午に出ます。", chunk="b")
    )
    text = "灯台の灯りは夜に回る。船は正午に出ます。"
    assert cited(made, text) == [("a", text[:11]), ("b", text)]


def test_equals_go_to_the_better_rank() -> None:
    """Of the first search, whichever was done first."""
    made = Sources()
    made.add(3, [passage(LAMP, "file-2", "late")])
    made.add(1, [passage(LAMP, "file-1", "first"), passage(LAMP, "file-3", "second")])
    assert cited(made, "The lamp turns at night.")[0][0] == "first"


def test_other_words_cite_the_best_of_each_file() -> None:
    """A few files, at the end of the text."""
    made = sources(
        passage(LAMP, "file-0", "a"),
        passage(OIL, "file-0", "b"),
        *(passage(f"{n} {OIL}", f"file-{n}", f"{n}") for n in range(1, 9)),
    )
    text = "Es dreht sich. Und leuchtet."
    found = cited(made, text)
    assert found[0] == ("a", text)
    assert len(found) == MOST_FILES
    assert {end for _, end in found} == {text}


def test_very_much_is_compared_in_bounded_time() -> None:
    """Many passages and a text of many sentences don't hold up everybody else."""
    words = [f"word{n}" for n in range(300)]
    made = Sources()
    for place in range(40):
        made.add(place, [passage(" ".join(words) + f" {place} {n}") for n in range(50)])
    text = ". ".join(" ".join(f"thing{n}{m}" for m in range(15)) for n in range(5000)) + "."
    began = time.process_time()
    made.annotations(text)
    assert time.process_time() - began < 2
    shown: list[Any] = made._shown()
    assert len(shown) == MOST_SOURCES
    assert shown[-1].text.endswith("39 49")
