"""What the light layout makes of PDFs, and what plain text a document has."""

from __future__ import annotations

import json

import pytest

from adapters.docling import layout, pdf
from adapters.docling.layout import Line, PageLines
from adapters.docling.reading import read_document
from gateway.ports import ConversionFailed
from tests.support import documents


def blocks_of(path):
    with pdf.open_pdf(path, 100) as document:
        outline = pdf.outline(document)
        pages = [pdf.page_lines(page, number) for number, page in enumerate(document, 1)]
    return layout.arrange(pages, outline)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return blocks_of(documents.make_report_pdf(tmp_path_factory.mktemp("report") / "a.pdf"))


def test_headings_have_levels(report):
    """From their numbers; the title is above them all."""
    found = [(one.text, one.level) for one in report if one.label == "heading"]
    assert ("1 The station", 1) in found
    assert ("3.2 Plans", 2) in found
    assert len(found) in {10, 11}  # the title too, where it is as large as a chapter's heading


def test_paragraphs_are_whole(report):
    """Lines are joined, and paragraphs are not."""
    texts = [one.text for one in report if one.label == "text"]
    expected = [
        text for _, sections in documents.REPORT for _, paragraphs, _ in sections
        for text in paragraphs
    ]  # fmt: skip
    assert texts == expected


def test_bullets_belong_to_their_items(report):
    """Also where they are drawn in another size and beside the text."""
    items = [one.text for one in report if one.label == "list_item"]
    expected = [
        item for _, sections in documents.REPORT for _, _, items in sections for item in items
    ]
    assert items == expected


def test_tables_keep_rows_and_columns(report):
    """What is in line from top to bottom and from left to right."""
    (table,) = [one for one in report if one.label == "table"]
    assert table.rows[0] == ["Quarter", "Ships", "Diesel in litres"]
    assert table.rows[3] == ["Third", "4230", "3100"]


def test_headers_and_footers_are_told_from_text(report):
    """By being on every page."""
    assert sum(one.label == "page_header" for one in report) == 4
    assert [one.text for one in report if one.label == "page_footer"] == [
        f"Page {number}" for number in range(1, 5)
    ]


def test_everything_has_a_page_and_a_box(report):
    """In points from the top left corner of the page."""
    for one in report:
        assert 1 <= one.page <= 4
        assert 0 <= one.left < one.right <= 596
        assert 0 <= one.top < one.bottom <= 842


def test_two_columns_are_read_one_after_the_other(tmp_path):
    """And the title over them first."""
    blocks = blocks_of(documents.make_two_column_pdf(tmp_path / "two.pdf"))
    texts = [one.text for one in blocks if one.label != "heading" and not one.continues]
    assert texts[0].startswith("A Paper in two Columns")
    numbers = [text.split()[0] for text in texts[1:]]
    assert numbers == [f"P{number}" for number in range(6)]


def page(*lines, number=1):
    return PageLines(number=number, width=600, height=800, lines=list(lines))


def line(text, top, *, left=50.0, right=550.0, size=10.0, bold=False, hyphenated=False):
    return Line(left, top, right, top + size, text, size, bold, hyphenated)


def test_a_word_that_was_cut_at_the_end_of_a_line_is_joined():
    """The hyphen that the typesetter put in goes; one that belongs to the word stays."""
    cut = [line("The light-", 100, hyphenated=True), line("house is white, and well-", 112)]
    (block,) = layout.arrange([page(*cut, line("known for it.", 124))])
    assert block.text == "The lighthouse is white, and well-known for it."


def test_a_paragraph_goes_on_after_the_page():
    """It is one item with two places."""
    first = page(line("It ends in the middle of", 700))
    second = page(line("this sentence.", 80), number=2)
    one, two = layout.arrange([first, second])
    assert not one.continues
    assert two.continues


def test_a_table_of_contents_gives_levels():
    """A PDF's own one is believed before anything else."""
    lines = [line("Introduction", 100), line("Words and words and more words.", 130)]
    heading, _ = layout.arrange([page(*lines)], {(1, "introduction"): 3})
    assert (heading.label, heading.level) == ("heading", 3)


def document(tmp_path, texts, **others):
    path = tmp_path / "document.json"
    body = {"children": [{"$ref": f"#/texts/{at}"} for at in range(len(texts))]}
    body["children"] += [{"$ref": "#/tables/0"}] if "tables" in others else []
    content = {"schema_name": "DoclingDocument", "body": body, "texts": texts, **others}
    path.write_text(json.dumps(content))
    return read_document(path)


def text(content, label="text", **fields):
    return {"label": label, "text": content, "prov": [], "children": [], **fields}


def test_the_plain_text_is_the_items_in_reading_order(tmp_path):
    """With an empty line between them; furniture of pages is left out."""
    reading = document(
        tmp_path,
        [
            text("Report", "title"),
            text("Header", "page_header", content_layer="furniture"),
            text("First.", prov=[{"page_no": 1}, {"page_no": 2}]),
            text("Chapter", "section_header", level=1),
            text("one", "list_item", enumerated=True, marker="1."),
            text(""),
        ],
    )
    assert reading.text == "Report\n\nFirst.\n\nChapter\n\n1. one"
    assert reading.headings_at(len("Report\n\nFirst.\n\n"), len(reading.text)) == [
        "Report",
        "Chapter",
    ]
    assert reading.pages_between(0, 12) == [1, 2]


def cell(row, column, content, *, header=False):
    return {
        "text": content,
        "start_row_offset_idx": row,
        "end_row_offset_idx": row + 1,
        "start_col_offset_idx": column,
        "end_col_offset_idx": column + 1,
        "column_header": header,
    }


def test_values_of_a_table_stand_with_their_row_and_column(tmp_path):
    """So that a part of it can be understood."""
    names = [cell(0, at, name, header=True) for at, name in enumerate(("Quarter", "Ships", "Oil"))]
    values = [cell(1, at, value) for at, value in enumerate(("First", "2100", "7400"))]
    table = {
        "label": "table",
        "prov": [{"page_no": 4}],
        "captions": [{"$ref": "#/texts/0"}],
        "data": {"num_rows": 2, "num_cols": 3, "table_cells": names + values},
    }
    reading = document(tmp_path, [text("Traffic", "caption")], tables=[table])
    assert reading.text == "Traffic\nFirst, Ships = 2100. First, Oil = 7400."
    assert reading.pages_between(0, 5) == [4]


def test_what_databases_cannot_store_is_not_in_the_text(tmp_path):
    """NUL."""
    assert document(tmp_path, [text("a\0b")]).text == "ab"


def test_json_that_is_no_document_is_our_fault(tmp_path):
    """Not the file's."""
    path = tmp_path / "broken.json"
    for content in ("{", "[]", '{"schema_name": "Other"}'):
        path.write_text(content)
        with pytest.raises(ConversionFailed) as caught:
            read_document(path)
        assert caught.value.code == "server_error"
