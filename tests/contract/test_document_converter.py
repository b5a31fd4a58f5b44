"""The port ``DocumentConverter``, on the light converter and on a docling-serve.

A real docling-serve is too large to be started here: the one used is a stand-in of recorded
shapes, see ``tests/support/docling_serve.py``.
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from adapters.docling import DoclingConverter, converter_for
from adapters.docling.remote import DoclingServeConverter
from gateway.ports import ChunkSizes, ConversionFailed
from gateway.settings import DocumentSettings, IngestionSettings
from tests.support import documents
from tests.support.docling_serve import DoclingServe

pytestmark = pytest.mark.anyio

LIMITS = IngestionSettings(
    timeout_seconds=60, max_pages=5, max_unzipped_bytes=8 * 1024**2, max_file_bytes=2 * 1024**2
)


@pytest.fixture(scope="module")
def serve():
    with DoclingServe(api_key="sesame") as server:
        yield server


@pytest.fixture(scope="module", params=["docling", "docling-serve"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
async def converter(kind, serve, anyio_backend):
    settings = (
        DocumentSettings()
        if kind == "docling"
        else DocumentSettings(converter="docling-serve", url=serve.url, api_key="sesame")
    )
    made = converter_for(settings, LIMITS)
    yield made
    await made.aclose()


@pytest.fixture
def convert(converter, tmp_path):
    async def run(source, filename=None):
        into = tmp_path / "converted.json"
        await converter.convert(source, filename or source.name, into)
        return json.loads(into.read_bytes()), into

    return run


async def failure(convert, source, filename=None) -> ConversionFailed:
    with pytest.raises(ConversionFailed) as caught:
        await convert(source, filename)
    assert not (source.parent / "converted.json").exists()
    assert list(source.parent.glob("*.part")) == []
    return caught.value


async def test_settings_choose_the_converter(converter, kind):
    """``documents.converter`` names the adapter."""
    expected = DoclingConverter if kind == "docling" else DoclingServeConverter
    assert type(converter) is expected


async def test_a_pdf_becomes_a_docling_document(convert, tmp_path):
    """Headings with levels, lists, tables and page numbers are in the JSON."""
    document, _ = await convert(documents.make_report_pdf(tmp_path / "report.pdf"))
    assert document["schema_name"] == "DoclingDocument"
    headings = {
        text["text"]: (text["level"], text["prov"][0]["page_no"])
        for text in document["texts"]
        if text["label"] == "section_header"
    }
    assert headings["2 Operations"] == (1, 2)
    assert headings["2.2 Incidents"] == (2, 2)
    assert sum(text["label"] == "list_item" for text in document["texts"]) == 6
    assert document["tables"][0]["data"]["num_rows"] == 5


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx"])
async def test_office_files_become_text(converter, convert, tmp_path, name):
    """Word, PowerPoint and Excel."""
    make = {"d": documents.make_docx, "p": documents.make_pptx, "x": documents.make_xlsx}[name[2]]
    _, into = await convert(make(tmp_path / name))
    text = "\n".join(chunk.text for chunk in await converter.chunk(into, ChunkSizes()))
    assert ("Seven keepers live on the island." in text) or ("First, Ships = 2100" in text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", "<html><body><h1>Light</h1><p>Seven keepers.</p></body></html>"),
        ("a.md", "# Light\n\nSeven keepers.\n"),
        ("a.adoc", "= Light\n\nSeven keepers.\n"),
    ],
)
async def test_marked_up_text_keeps_its_headings(converter, convert, tmp_path, name, content):
    """HTML, Markdown and AsciiDoc."""
    source = tmp_path / name
    source.write_text(content)
    _, into = await convert(source)
    (chunk,) = await converter.chunk(into, ChunkSizes())
    assert chunk.text.endswith("Seven keepers.")
    assert chunk.headings == ["Light"]


@pytest.mark.parametrize("name", ["a.txt", "a.py", "a.json", "a.log", "a.yaml", "Makefile", "a"])
async def test_what_is_text_stays_as_it_is(converter, convert, tmp_path, name):
    """Plain text, source code, JSON and logs aren't given to docling."""
    content = '{"a": 1}\n\tdef f():\n\r\n  Grüße 😀\n'
    source = tmp_path / "file"
    source.write_bytes(content.encode())
    document, into = await convert(source, name)
    assert document == {"schema_name": "PlainText", "text": content}
    (chunk,) = await converter.chunk(into, ChunkSizes())
    assert content[chunk.start : chunk.end] == chunk.text
    assert chunk.pages == []


async def test_chunks_know_their_place(converter, convert, tmp_path):
    """Each has the headings above it, its pages, and offsets that ascend."""
    _, into = await convert(documents.make_report_pdf(tmp_path / "report.pdf"))
    chunks = await converter.chunk(
        into, ChunkSizes(max_chunk_size_tokens=100, chunk_overlap_tokens=0)
    )
    assert all(0 < chunk.tokens <= 100 for chunk in chunks)
    (trawler,) = [chunk for chunk in chunks if "trawler Marta" in chunk.text]
    assert trawler.headings == [documents.REPORT_TITLE, "2 Operations", "2.2 Incidents"] or (
        trawler.headings == ["2 Operations", "2.2 Incidents"]
    )
    assert trawler.pages == [2]
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(starts)
    assert "Skarholm lighthouse service" not in "".join(chunk.text for chunk in chunks)


async def test_chunks_are_the_same_each_time(converter, convert, tmp_path):
    """Also of the same JSON in another place, so that a re-chunk needs no conversion."""
    _, into = await convert(documents.make_report_pdf(tmp_path / "report.pdf"))
    sizes = ChunkSizes(max_chunk_size_tokens=120, chunk_overlap_tokens=40)
    first = await converter.chunk(into, sizes)
    again = await converter.chunk(into.rename(tmp_path / "moved.json"), sizes)
    assert first == again
    assert len(first) > 3


async def test_a_document_without_text_has_no_chunks(converter, convert, tmp_path):
    """White space is nothing to search for."""
    source = tmp_path / "blank.txt"
    source.write_text(" \n\t\n")
    _, into = await convert(source)
    assert await converter.chunk(into, ChunkSizes()) == []


@pytest.mark.parametrize(
    "make",
    [
        documents.make_encrypted_pdf,
        lambda path: path.write_bytes(b"%PDF-1.7\n" + b"garbage " * 50) and path,
        lambda path: path.write_bytes(b"not a PDF at all") and path,
        documents.make_truncated_pdf,
        lambda path: documents.make_damaged_docx(path.with_suffix(".docx")),
        lambda path: documents.make_bomb(path.with_suffix(".docx")),
        lambda path: documents.make_long_pdf(path, LIMITS.max_pages + 1),
        lambda path: path.write_bytes(b"%PDF-1.7\n" + b"x" * LIMITS.max_file_bytes) and path,
    ],
    ids=["encrypted", "damaged", "named", "cut", "docx", "bomb", "pages", "bytes"],
)
async def test_bad_files_are_invalid(convert, tmp_path, make):
    """The file is to blame, and another attempt would not help."""
    error = await failure(convert, make(tmp_path / "bad.pdf"))
    assert error.code == "invalid_file"
    assert not error.transient
    assert len(error.message) > 20


async def test_an_empty_file_says_so(convert, tmp_path):
    """Nothing is not converted to nothing."""
    source = tmp_path / "empty.txt"
    source.touch()
    error = await failure(convert, source)
    assert (error.code, error.message) == ("invalid_file", "The file is empty.")


async def test_binary_files_are_unsupported(convert, tmp_path):
    """What is neither a known document nor text."""
    source = tmp_path / "program.bin"
    source.write_bytes(bytes(range(256)) * 20)
    assert (await failure(convert, source)).code == "unsupported_file"


@pytest.mark.alone
async def test_cancelling_ends_within_a_second(converter, tmp_path):
    """The caller has left: the work stops, and the next file is converted."""
    source = tmp_path / "giant.txt"
    source.write_text("a" * 8_000_000)
    into = tmp_path / "giant.json"
    await converter.convert(source, source.name, into)
    task = asyncio.create_task(
        converter.chunk(into, ChunkSizes(max_chunk_size_tokens=100, chunk_overlap_tokens=50))
    )
    await asyncio.sleep(0.5)
    assert not task.done()
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 1
    source.write_text("short")
    await converter.convert(source, source.name, into)
    assert [chunk.text for chunk in await converter.chunk(into, ChunkSizes())] == ["short"]
