"""The lines of a batch's input: read a piece at a time, and looked at without a fault."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from gateway.batches import lines
from gateway.batches.lines import LineRefused, parse_line, read_lines
from gateway.http.download import Content
from tests.promises.test_stateful_routes_survive_junk import VALUES, spoiled
from tests.support.batches import CHAT, chat_line

pytestmark = pytest.mark.anyio


def content_of(data: bytes) -> Content:
    async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
        for at in range(start, end, 3):
            yield data[at : min(at + 3, end)]

    return Content(filename="a", media_type=None, size=len(data), digest="", read=read)


@pytest.mark.parametrize("window", [1, 2, 7, 1024])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a",
        b"a\n",
        b"a\nb",
        b"\n\na\n\nbb\n",
        b"a\r\nb\r\n",
        b"aaaaaaaaaaaaaa\nb\n",
        "ü\nß\n".encode(),
        b" \n\t\nx",
    ],
)
async def test_lines_are_those_of_the_file(monkeypatch, data: bytes, window: int):
    """However the file is cut, with their numbers and without blank ones."""
    monkeypatch.setattr(lines, "_WINDOW_BYTES", window)
    found = [(one.number, one.content) async for one in read_lines(content_of(data), 100)]
    expected = enumerate(data.split(b"\n"), 1)
    assert found == [(number, one.strip()) for number, one in expected if one.strip()]


async def test_a_long_line_is_not_held(monkeypatch):
    """It is told by its number alone, and the next one is read."""
    monkeypatch.setattr(lines, "_WINDOW_BYTES", 5)
    data = b"a\n" + b"x" * 30 + b"\nb"
    found = [(one.number, one.content) async for one in read_lines(content_of(data), 10)]
    assert found == [(1, b"a"), (2, None), (3, b"b")]


async def test_a_line_s_values_stay_as_they_are():
    """Numbers that no Python number is are passed on as they were written."""
    text = json.dumps(chat_line("a", "m", x=0)).replace('"x": 0', '"x": 1.0000000000000001e400')
    request = parse_line(text.encode(), CHAT)
    assert (request.custom_id, request.model) == ("a", "m")
    assert bytes(request.body["x"]) == b"1.0000000000000001e400"


@pytest.mark.parametrize("junk", VALUES)
async def test_no_junk_in_a_line_is_a_fault(junk: str):
    """Each value in turn is what it should not be: the line is refused in words, or taken."""
    for _, line in spoiled(chat_line("a", stream=False), VALUES[junk]):
        with suppress(LineRefused):
            parse_line(line, CHAT)
    for _, line in spoiled([json.loads("{}")], VALUES[junk]):
        with pytest.raises(LineRefused):
            parse_line(line, CHAT)
