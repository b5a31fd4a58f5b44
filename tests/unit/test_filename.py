"""File names: read as callers send them, made harmless, and put into a header and back."""

from __future__ import annotations

import unicodedata
from email.message import Message

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.filename import MAX_CHARACTERS, UNNAMED, attachment, disposition_of, harmless

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def raw(header: str) -> str:
    """A header as the parser hands it over: each byte as a character."""
    return header.encode().decode("latin-1")


def parsed(header: str) -> str | None:
    """The name as Python's own reader understands it; `filename*` alone where it is there, which
    that reader, unlike browsers, would pass by for `filename`."""
    message = Message()
    extended = header.partition("filename*=")[2]
    message["content-disposition"] = f"attachment; filename*={extended}" if extended else header
    return message.get_filename()


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ('filename="plain.txt"', "plain.txt"),
        ("filename=token.txt", "token.txt"),
        ('filename="日本語 отчёт.pdf"', "日本語 отчёт.pdf"),
        ('filename="a%22b%22.txt"', 'a"b".txt'),
        ('filename="a\\"b\\".txt"', 'a"b".txt'),
        ('filename="a\\\\b.txt"', "a\\b.txt"),
        ('filename="a;b=c.txt"', "a;b=c.txt"),
        ('filename="100%25.txt"', "100%25.txt"),
        ('filename="a%0D%0Ab.txt"', "a\r\nb.txt"),
        ("filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("filename=\"fallback.txt\"; filename*=utf-8'en'%E2%82%AC.txt", "€.txt"),
        ("filename*=UTF-8''%ff; filename=\"fallback.txt\"", "fallback.txt"),
        ("filename*=iso-8859-1''%E9.txt", "é.txt"),
        ("filename*=UTF-7''x", ""),
        ('filename=""', ""),
        ('filename="no end', '"no end'),
        ("size=3", None),
    ],
)
def test_a_name_is_read_as_it_was_sent(sent: str, name: str | None):
    """Browsers' way, the SDKs' way and RFC 5987's."""
    assert disposition_of(raw(f'form-data; name="file"; {sent}')) == ("file", name)


def test_a_name_that_is_not_utf8_is_latin1():
    """Every byte stands for something, so nothing is refused."""
    assert disposition_of('form-data; name="file"; filename="caf\xe9"') == ("file", "café")


@given(names)
def test_what_an_sdk_sends_is_read_back(name: str):
    """As httpx writes it into a form, which alters only what is no character to be seen."""
    sent = "".join(one for one in name if unicodedata.category(one) != "Cc" and one != "%")
    request = httpx.Request("POST", "http://x", files={"file": (sent or "a", b"")})
    [header] = [line for line in request.read().split(b"\r\n") if b"isposition" in line]
    found = disposition_of(header.partition(b": ")[2].decode("latin-1"))
    assert found == ("file", sent or "a")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.doc", "a.doc"),
        ("..\\..\\a.doc", "a.doc"),
        ("..", UNNAMED),
        (".", UNNAMED),
        ("", UNNAMED),
        (None, UNNAMED),
        ("folder/", UNNAMED),
        ("   ", UNNAMED),
        (".env", ".env"),
        ("a\x00b\r\nc\x7f\x85\u2028.txt", "abc.txt"),
        ("invoice\u202etxt.exe", "invoicetxt.exe"),
        ("تقرير.pdf", "تقرير.pdf"),
        ("דוח 2026.docx", "דוח 2026.docx"),
        ("می\u200cروم.txt", "می\u200cروم.txt"),
        ("👩‍👩‍👧.png", "👩‍👩‍👧.png"),
        ("\ud800x.txt", "x.txt"),
        ("CON", "CON"),
        ('<script>alert("x")', '<script>alert("x")'),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("x" * 300, "x" * 255),
        ("x." + "y" * 300, "x." + "y" * 253),
    ],
)
def test_a_name_is_kept_without_folders_and_control_characters(name: str | None, kept: str):
    """Letters of every script stay; what could lead elsewhere or deceive goes."""
    assert harmless(name) == kept


@given(names)
def test_a_kept_name_is_always_harmless(name: str):
    """For any text: one line, no folder, 1 to 255 characters, and the same the second time."""
    kept = harmless(name)
    assert 1 <= len(kept) <= MAX_CHARACTERS
    assert not any(unicodedata.category(one) == "Cc" for one in kept)
    assert "/" not in kept
    assert "\\" not in kept
    assert kept not in (".", "..")
    assert harmless(kept) == kept
    assert len(kept.splitlines()) == 1


@given(names)
def test_a_name_in_a_header_is_read_back(name: str):
    """The header is printable ASCII on one line, and Python reads the very name out of it."""
    kept = harmless(name)
    header = attachment(kept)
    assert header.isascii()
    assert header.isprintable()
    assert parsed(header) == kept
