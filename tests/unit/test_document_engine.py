"""Which way each file takes, and what is said of those that can't be converted."""

from __future__ import annotations

import importlib.util
import json

import pytest

from adapters.docling import converter, engine, ocr, text
from adapters.docling.engine import Engine, EngineOptions
from adapters.docling.formats import recognise
from gateway.ports import ConversionFailed
from tests.support import documents


def options(**changes):
    defaults = {
        "max_pages": 5,
        "max_file_bytes": 2**24,
        "max_unzipped_bytes": 2**24,
        "max_chunks": 100,
        "memory_bytes": 2**32,
    }
    return EngineOptions(**{**defaults, **changes})


def failure(source, filename=None, **changes) -> ConversionFailed:
    with pytest.raises(ConversionFailed) as caught:
        Engine(options(**changes)).convert(source, filename or source.name)
    return caught.value


def written(tmp_path, content: bytes, name="file"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Grüße 😀".encode(), "Grüße 😀"),
        ("Grüße".encode("utf-8-sig"), "Grüße"),
        ("Grüße 😀".encode("utf-16"), "Grüße 😀"),
        ("Grüße".encode("utf-32"), "Grüße"),
        ("Many plain words of Windows, Grüße".encode("utf-16-le"),
         "Many plain words of Windows, Grüße"),
        ("Schöne Grüße aus Köln, ein längerer Satz mit Umlauten: äöü.".encode("cp1252"),
         "Schöne Grüße aus Köln, ein längerer Satz mit Umlauten: äöü."),
        (b"x" * 5000 + b"\xc3", "x" * 5000 + "\ufffd"),
        (b"\x1b[31mred\x1b[0m log line\n", "\x1b[31mred\x1b[0m log line\n"),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-32", "unmarked", "windows", "cut", "colours"],
)  # fmt: skip
def test_text_is_decoded(content, expected):
    """UTF in its kinds, older encodings, and files that end inside a character."""
    assert text.decode(content) == expected


@pytest.mark.parametrize(
    "content", [bytes(range(256)), b"\x00\x01\x02\x03" * 100, b"\x7fELF" + b"\x00" * 60]
)
def test_binary_data_is_not_taken_for_text(content):
    """Whatever a file is called."""
    with pytest.raises(ConversionFailed) as caught:
        text.decode(content, "txt")
    assert caught.value.code == "unsupported_file"


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (documents.make_report_pdf, "report", "pdf"),
        (documents.make_docx, "no ending", "docx"),
        (documents.make_pptx, "no ending", "pptx"),
        (documents.make_xlsx, "table.docx.bak", "xlsx"),
        (lambda path: path.write_text("<!DOCTYPE html><html>") and path, "page", "html"),
        (lambda path: path.write_text('MAGIC = "%PDF-1.7"') and path, "read.py", "text"),
        (lambda path: path.write_text("# Title") and path, "README.MD", "md"),
        (lambda path: path.write_text("Bee: BM40 (BM\0)") and path, "bm.txt", "text"),
    ],
)
def test_the_first_bytes_tell_before_the_name(tmp_path, make, name, kind):
    """Files are often misnamed."""
    assert recognise(make(tmp_path / "file"), name).name == kind


def test_every_failure_has_words_of_its_own(tmp_path):
    """What is wrong with the file, so that its owner can mend it."""
    made = {
        "encrypted": documents.make_encrypted_pdf(tmp_path / "encrypted.pdf"),
        "damaged": written(tmp_path, b"%PDF-1.7 garbage", "damaged.pdf"),
        "pages": documents.make_long_pdf(tmp_path / "pages.pdf", 6),
        "scan": documents.make_scanned_pdf(tmp_path / "scan.pdf"),
        "empty": written(tmp_path, b"", "empty.pdf"),
        "named": written(tmp_path, b"hello", "named.pdf"),
        "bomb": documents.make_bomb(tmp_path / "bomb.docx"),
        "docx": documents.make_damaged_docx(tmp_path / "cut.docx"),
        "large": documents.make_xlsx(tmp_path / "large.xlsx"),
        "old": written(tmp_path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old.doc"),
        "locked": written(
            tmp_path,
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "locked.docx",
        ),
        "binary": written(tmp_path, bytes(range(256)), "program.exe"),
        "zip": written(tmp_path, b"PK\x03\x04" + b"\0" * 40, "all.zip"),
    }
    said = {
        name: failure(path, max_file_bytes=100 if name == "large" else 2**24)
        for name, path in made.items()
    }
    assert {name for name, error in said.items() if error.code == "unsupported_file"} == {
        "scan", "old", "binary", "zip",
    }  # fmt: skip
    assert not any(error.transient for error in said.values())
    words = {
        "encrypted": "password",
        "damaged": "damaged",
        "pages": "ingestion.max_pages (5)",
        "scan": "documents.ocr",
        "empty": "empty",
        "named": "named .pdf",
        "bomb": "ingestion.max_unzipped_bytes",
        "docx": "can't be unpacked",
        "large": "ingestion.max_file_bytes",
        "old": "docx",
        "locked": "password",
        "binary": ".exe",
        "zip": "Unpack it",
    }
    assert {name: word for name, word in words.items() if word not in said[name].message} == {}


def test_an_owners_password_is_no_hindrance(tmp_path):
    """It forbids printing; reading is allowed."""
    source = documents.make_encrypted_pdf(tmp_path / "a.pdf", password="")
    assert b"Nobody may print" in Engine(options()).convert(source, "a.pdf")


def test_a_blank_pdf_is_a_document_without_text(tmp_path):
    """There is nothing wrong with it."""
    import pypdfium2

    blank = pypdfium2.PdfDocument.new()
    blank.new_page(100, 100)
    blank.save(tmp_path / "blank.pdf")
    made = json.loads(Engine(options()).convert(tmp_path / "blank.pdf", "blank.pdf"))
    assert made["texts"] == []


def test_pictures_are_read_where_that_is_set(tmp_path, monkeypatch):
    """And else the message says what helps."""
    source = tmp_path / "scan.png"
    documents.make_picture("Seven keepers").save(source)
    assert "documents.ocr" in failure(source).message
    monkeypatch.setattr(ocr, "available", lambda: False)
    assert "understudy-gateway[ocr]" in failure(source, ocr=True).message


@pytest.mark.skipif(not ocr.available(), reason="the extra ocr is not installed")
@pytest.mark.parametrize("name", ["scan.png", "scan.pdf"])
def test_text_in_pictures_is_read(tmp_path, name):
    """With the models that the package brings."""
    source = tmp_path / name
    if name == "scan.png":
        documents.make_picture().save(source)
    else:
        documents.make_scanned_pdf(source)
    made = json.loads(Engine(options(ocr=True)).convert(source, name))
    assert "seven keepers live here" in " ".join(one["text"] for one in made["texts"]).lower()


def test_a_damaged_picture_is_invalid(tmp_path):
    """Not unsupported."""
    source = written(tmp_path, b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "a.png")
    assert failure(source, ocr=True).code == "invalid_file"


def test_without_docling_text_is_still_read(tmp_path, monkeypatch):
    """Markdown as plain text; and a PDF's message says what to install."""
    monkeypatch.setattr(engine, "_installed", lambda package: False)
    source = written(tmp_path, b"# Title\n", "a.md")
    made = json.loads(Engine(options()).convert(source, "a.md"))
    assert made == {"schema_name": "PlainText", "text": "# Title\n"}
    for name, content in (("a.pdf", b"%PDF-1.7"), ("a.html", b"<p>")):
        error = failure(written(tmp_path, content, name))
        assert error.code == "unsupported_file"
        assert "install understudy-gateway[docling]" in error.message
        assert "documents.converter: docling-serve" in error.message


def test_a_missing_folder_of_models_is_an_error_of_the_installation(tmp_path):
    """The file is not to blame; the message names the setting."""
    source = documents.make_report_pdf(tmp_path / "a.pdf")
    error = failure(source, models_path=str(tmp_path / "none"))
    assert error.code == "server_error"
    assert "documents.models_path" in error.message


def test_models_without_their_packages_are_an_error_of_the_installation(tmp_path, monkeypatch):
    """Torch is only in an extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    with pytest.raises(ConversionFailed, match="docling-full"):
        converter.pdf_options(options(models_path=str(tmp_path)))


def test_the_options_of_the_full_docling_are_built(tmp_path, monkeypatch):
    """Models from the folder, nothing from elsewhere. Real models are not at hand here."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find("json") if name == "torch" else find(name)
    )
    made = converter.pdf_options(options(models_path=str(tmp_path), ocr=True))
    assert made.artifacts_path == tmp_path
    assert made.do_ocr
    assert made.do_table_structure
    assert not made.enable_remote_services
