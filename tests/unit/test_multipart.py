"""Forms are read the same however they arrive, and never without an end."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ClientDisconnected,
    GatewayError,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from gateway.http.file_form import FileForm
from gateway.http.multipart import (
    MAX_FIELD_BYTES,
    MAX_HEADER_BYTES,
    MAX_OVERHEAD_BYTES,
    MAX_PARTS,
    FileLimit,
    FormReader,
)
from tests.support.forms import BOUNDARY, Body, form, scope_of, split

pytestmark = pytest.mark.anyio

LIMIT = FileLimit("file", 1000, "limits.max_file_bytes")
NASTY = b"\r\n--simpl\r\n--\r\n-\r\r\n--simple-not\r\n--SIMPLE--\r\n"
PARTS = (
    ('name="purpose"', b"assistants"),
    ('name="file"; filename="a.bin"', NASTY.replace(b"--simple-not", b"--sample-not")),
    ('name="empty"', b""),
)
content = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r", b"\n", b"-", b"simpl", b"x"]), max_size=12
).map(b"".join)


def reader(blocks, *, limit: FileLimit = LIMIT, cut: bool = False, **headers: str) -> FormReader:
    return FormReader(scope_of(**headers), Body(blocks, cut=cut), limit)


async def read_all(form_reader: FormReader) -> list[tuple[str, str | None, bytes]]:
    found = []
    while (part := await form_reader.next_part()) is not None:
        data = b"".join([block async for block in part.blocks()])
        found.append((part.name, part.filename, data))
    return found


async def test_a_form_may_be_cut_at_any_byte():
    """Two blocks with every place between them, and one byte at a time, read the same."""
    data = form(*PARTS)
    whole = await read_all(reader([data]))
    assert [name for name, _, _ in whole] == ["purpose", "file", "empty"]
    assert [found for _, _, found in whole] == [sent for _, sent in PARTS]
    for place in range(len(data) + 1):
        assert await read_all(reader([data[:place], data[place:]])) == whole
    assert await read_all(reader([bytes([byte]) for byte in data])) == whole


@given(st.lists(content, max_size=4), st.lists(st.integers(0, 2000), max_size=8))
def test_any_content_survives_any_cuts(contents: list[bytes], places: list[int]):
    """Content that looks like a boundary but isn't one comes out as it went in."""
    data = form(*((f'name="part{number}"', one) for number, one in enumerate(contents)))
    found = asyncio.run(read_all(reader(split(data, places))))
    assert [one for _, _, one in found] == contents


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_survived(data: bytes, places: list[int]):
    """Whatever comes ends in parts or in an error of ours."""
    for body in (data, f"--{BOUNDARY}\r\n".encode() + data):
        try:
            asyncio.run(read_all(reader(split(body, places))))
        except GatewayError as error:
            assert error.status in (400, 413)


@pytest.mark.parametrize("cut", [True, False], ids=["client gone", "body over"])
async def test_a_form_that_breaks_off_is_never_taken_for_whole(cut):
    """At whatever byte, it is an error: the client's departure, or a form without an end."""
    data = form(*PARTS)
    for length in range(len(data) - 2):  # the last line end may be missing
        with pytest.raises(ClientDisconnected if cut else InvalidRequest):
            await read_all(reader([data[:length]], cut=cut))


async def test_content_comes_while_it_arrives():
    """The first block of a file is there before the second one was sent."""
    head = form(('name="file"; filename="a"', b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]
    body = Body(itertools.chain([head + b"one"], itertools.repeat(b"more")))
    part = await FormReader(scope_of(), body, LIMIT).next_part()
    assert part is not None
    assert await anext(part.blocks()) == b"one"
    assert body.given == len(head) + 3


@pytest.mark.parametrize("size", [1000, 1001])
async def test_the_limit_is_exact(size: int):
    """A file may be as large as the limit and not a byte larger; the error names the setting."""
    blocks = split(form(('name="file"; filename="a"', b"x" * size)), [500, 900])
    if size == 1000:
        assert len((await read_all(reader(blocks)))[0][2]) == size
        return
    with pytest.raises(PayloadTooLarge, match=r"limits\.max_file_bytes") as caught:
        await read_all(reader(blocks))
    assert caught.value.param == "file"


async def test_a_declared_length_is_looked_at_first():
    """What says that it is too large is refused before anything is read."""
    with pytest.raises(PayloadTooLarge):
        reader([], content_length=str(1000 + MAX_OVERHEAD_BYTES + 1))


def endless(block: bytes):
    return itertools.repeat(block)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(endless(b"no boundary at all\r\n"), id="preamble"),
        pytest.param(
            itertools.chain([form(('name="a"', b"1"))], endless(b"epilogue")), id="epilogue"
        ),
        pytest.param(
            itertools.chain([b"--simple\r\nContent-Disposition: "], endless(b"long")), id="header"
        ),
        pytest.param(
            itertools.chain([b"--simple\r\n"], endless(b"X-Many: headers\r\n")), id="headers"
        ),
        pytest.param(
            itertools.cycle([form(('name="a"', b"1"))[: -len("--\r\n")] + b"\r\n"]), id="parts"
        ),
    ],
)
async def test_what_has_no_end_is_refused(blocks):
    """Before, behind and between parts there are bounds."""
    large = FileLimit("file", 10**12, "limits.max_file_bytes")
    body = Body(blocks)
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        await read_all(FormReader(scope_of(), body, large))
    assert body.given < 2 * MAX_OVERHEAD_BYTES


async def test_a_field_has_a_limit():
    """Fields are kept in memory, so they are short."""
    blocks = [form(('name="purpose"', b"x" * (MAX_FIELD_BYTES + 1)))]
    part = await reader(blocks, limit=FileLimit("file", 10**9, "")).next_part()
    assert part is not None
    with pytest.raises(PayloadTooLarge) as caught:
        await part.text()
    assert caught.value.param == "purpose"


async def test_a_field_is_text():
    """What isn't UTF-8 is refused by the field's name."""
    part = await reader([form(('name="purpose"', b"\xff"))]).next_part()
    assert part is not None
    with pytest.raises(InvalidRequest) as caught:
        await part.text()
    assert caught.value.param == "purpose"


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content_type": "application/json"}, UnsupportedMediaType),
        ({"content_type": ""}, UnsupportedMediaType),
        ({"content_encoding": "gzip"}, UnsupportedMediaType),
        ({"content_type": "multipart/form-data"}, InvalidRequest),
        ({"content_type": 'multipart/form-data; boundary=""'}, InvalidRequest),
        ({"content_type": f"multipart/form-data; boundary={'x' * 201}"}, InvalidRequest),
    ],
)
def test_what_is_no_form_is_refused(headers: dict[str, str], error: type[GatewayError]):
    """By its headers, before it is read."""
    with pytest.raises(error):
        reader([], **headers)


async def test_parts_in_base64_are_refused_not_stored_as_they_are():
    """An encoding that isn't undone would be stored as content."""
    data = form(('name="file"', b"YQ=="), headers="Content-Transfer-Encoding: base64\r\n")
    with pytest.raises(InvalidRequest) as caught:
        await read_all(reader([data]))
    assert caught.value.param == "file"


async def read_form(*parts: tuple[str, bytes], fields=("purpose",), check=lambda: None):
    found = await FileForm.begin(reader([form(*parts)]), fields)
    return found, b"".join([block async for block in found.content(check)])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_fields_may_come_before_or_behind_the_file(order: tuple[int, ...]):
    """Any order is the same form, and unknown fields are passed by."""
    parts = [
        ('name="purpose"', b"batch"),
        ('name="file"; filename="a.txt"', b"hello"),
        ('name="other"; filename="b.txt"', b"x" * 500),
    ]
    found, data = await read_form(*(parts[number] for number in order))
    assert (found.filename, found.fields, data) == ("a.txt", {"purpose": "batch"}, b"hello")


async def test_the_form_is_checked_before_its_content_ends():
    """Who stores the content sees the error, and so stores nothing."""

    def refuse() -> None:
        raise InvalidRequest("no", param="purpose")

    with pytest.raises(InvalidRequest, match="no"):
        await read_form(('name="file"', b"hello"), check=refuse)


async def test_a_form_has_one_file():
    """None is a missing parameter, and a second one is refused."""
    with pytest.raises(InvalidRequest) as caught:
        await read_form(('name="purpose"', b"batch"))
    assert (caught.value.param, caught.value.code) == ("file", "missing_required_parameter")
    with pytest.raises(InvalidRequest) as caught:
        await read_form(('name="file"', b"1"), ('name="file"', b"2"))
    assert caught.value.param == "file"


def test_the_bounds_leave_room_for_what_is_usual():
    """A form with the most parts and long names is still a form."""
    assert MAX_PARTS >= 16
    assert MAX_HEADER_BYTES >= 255 * 4 * 3
