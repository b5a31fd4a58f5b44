"""Images and files of an input are read once, within bounds, and are what they say they are."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.errors import GatewayError, InvalidRequest, NotFound, UpstreamError
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import ConversionFailed
from gateway.responses import inputs
from gateway.responses.inputs import AT_ONCE, MAX_ATTACHMENTS, MAX_IMAGE_BYTES, InputReader

pytestmark = pytest.mark.anyio

IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n rest",
    "image/jpeg": b"\xff\xd8\xff\xe0 rest",
    "image/gif": b"GIF89a rest",
    "image/webp": b"RIFF\n\x00\x00\x00WEBPVP8 rest",
}


class Content:
    def __init__(self, filename: str, data: bytes, size: int | None = None) -> None:
        self.filename = filename
        self.size = len(data) if size is None else size
        self._data = data

    async def read(self, first: int, count: int) -> AsyncIterator[bytes]:
        assert self.size == len(self._data), "nobody reads what is too large"
        yield self._data[first : first + count]


class Files:
    """`read` counts."""

    def __init__(self, **contents: Content) -> None:
        self._contents = contents
        self.read: list[str] = []

    async def content(self, principal: Principal, file_id: str) -> Content:
        self.read.append(file_id)
        if file_id not in self._contents:
            raise NotFound(f"No such File object: {file_id}", param="file_id")
        return self._contents[file_id]


class Chunk:
    def __init__(self, text: str) -> None:
        self.text = text


class Converter:
    """Documents are text; `fails` is raised in place of one. `most` were at work at once."""

    def __init__(self, fails: ConversionFailed | None = None) -> None:
        self._fails = fails
        self._now = self.most = 0

    async def convert(self, source: Path, name: str, document: Path) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if self._fails is not None:
                raise self._fails
            document.write_bytes(source.read_bytes())  # noqa: ASYNC240  (a few bytes)
        finally:
            self._now -= 1

    async def chunk(self, document: Path, sizes: Any) -> list[Chunk]:
        return [Chunk(document.read_text())]  # noqa: ASYNC240  (a few bytes)


class Folders:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        self._next += 1
        path = self._path / str(self._next)
        path.mkdir()
        yield path


def reader(tmp_path: Path, files: Files | None = None, converter: Any = None) -> InputReader:
    return InputReader(
        Principal(),
        cast("Any", files or Files()),
        cast("Any", None),
        converter or Converter(),
        cast("Any", Folders(tmp_path)),
    )


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(parts)}


def url(data: bytes, said: str = "image/png") -> str:
    return f"data:{said};base64,{base64.b64encode(data).decode()}"


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "input_image", **fields}


async def read(made: InputReader, *items: dict[str, Any]) -> None:
    activity = Activity(cast("Any", None), None, 0, 0)
    await made.read(activity, [(f"input[{n}]", item) for n, item in enumerate(items)])


@pytest.mark.parametrize("kind", IMAGES)
async def test_an_image_is_what_its_bytes_are(tmp_path: Path, kind: str) -> None:
    """Whatever the caller calls it, the model server is told the truth."""
    made = reader(tmp_path)
    part = image(image_url=url(IMAGES[kind], "text/html"), detail="original")
    await read(made, user(part))
    assert made.content([part]) == [
        {"type": "image_url", "image_url": {"url": url(IMAGES[kind], kind)}}
    ]


@pytest.mark.parametrize(
    "data", [b"", b"RIFF\n\x00\x00\x00WAVEfmt ", b"GIF8", b"<svg/>", b"\x89PNG", b"%PDF-1.7"]
)
async def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    """Sounds in a RIFF too."""
    with pytest.raises(InvalidRequest) as raised:
        await read(reader(tmp_path), user(image(image_url=url(data))))
    assert raised.value.param == "input[0].content[0].image_url"


async def test_everything_is_read_once(tmp_path: Path) -> None:
    """However often it is named, and however often the items are read."""
    files = Files(a=Content("a.txt", b"text"))
    made = reader(tmp_path, files)
    part = {"type": "input_file", "file_id": "a"}
    await read(made, user(part, part), user(part))
    await read(made, user(part))
    assert files.read == ["a"]
    assert made.content([part]) == "File a.txt:\ntext"


async def test_few_are_read_at_once(tmp_path: Path) -> None:
    """Conversions take memory."""
    converter = Converter()
    parts = [{"type": "input_file", "filename": f"{n}.txt", "file_data": "QQ=="} for n in range(20)]
    await read(reader(tmp_path, converter=converter), user(*parts))
    assert 1 <= converter.most <= AT_ONCE


async def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    """By its size in the database, or by the length of its base64; or all of them together."""
    files = Files(big=Content("big.png", b"", MAX_IMAGE_BYTES + 1))
    with pytest.raises(InvalidRequest) as raised:
        await read(reader(tmp_path, files), user(image(file_id="big")))
    assert raised.value.param == "input[0].content[0].file_id"
    assert raised.value.code == "file_too_large"
    with pytest.raises(InvalidRequest) as raised:
        data = "A" * (MAX_IMAGE_BYTES * 4 // 3 + 8)
        await read(reader(tmp_path), user(image(image_url=f"data:image/png;base64,{data}")))
    assert raised.value.code == "file_too_large"


async def test_all_together_may_not_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone would do."""
    monkeypatch.setattr(inputs, "MAX_TOTAL_BYTES", 30)
    parts = [image(image_url=url(IMAGES["image/png"] + bytes([n]))) for n in range(3)]
    await read(reader(tmp_path), user(*parts[:2]))
    with pytest.raises(InvalidRequest, match="together are larger"):
        await read(reader(tmp_path), user(*parts))


async def test_too_many_are_refused(tmp_path: Path) -> None:
    """Before any is read."""
    files = Files()
    parts = [image(file_id=f"f{n}") for n in range(MAX_ATTACHMENTS + 1)]
    with pytest.raises(InvalidRequest, match="more than 100"):
        await read(reader(tmp_path, files), user(*parts))
    assert files.read == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("server_error", UpstreamError),
        ("unsupported_file", InvalidRequest),
        ("invalid_file", InvalidRequest),
    ],
)
async def test_a_file_that_cant_be_read_is_its_callers(
    tmp_path: Path, code: Any, error: type[GatewayError]
) -> None:
    """Unless it is the converter that failed."""
    converter = Converter(ConversionFailed(code, "It is broken."))
    part = {"type": "input_file", "filename": "a.pdf", "file_data": "QQ=="}
    with pytest.raises(error, match="It is broken") as raised:
        await read(reader(tmp_path, converter=converter), user({**part}))
    if error is InvalidRequest:
        assert (raised.value.param, raised.value.code) == ("input[0].content[0]", code)


async def test_what_is_not_the_inputs_is_named_by_where_it_is_from(tmp_path: Path) -> None:
    """Callers can't count into earlier responses."""
    activity = Activity(cast("Any", None), None, 0, 0)
    item = user(image(file_id="gone"))
    with pytest.raises(NotFound) as raised:
        await reader(tmp_path).read(activity, [("previous_response_id", item)])
    assert raised.value.param == "previous_response_id"
    output = {"type": "function_call_output", "output": [image(file_id="gone")]}
    with pytest.raises(NotFound) as raised:
        await reader(tmp_path).read(activity, [("input[4]", output)])
    assert raised.value.param == "input[4].output[0].file_id"


async def test_other_parts_are_text_or_sound(tmp_path: Path) -> None:
    """Text alone is a string, with anything else a list."""
    made = reader(tmp_path)
    text = {"type": "input_text", "text": "a"}
    refusal = {"type": "refusal", "refusal": "b"}
    sound = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
    assert made.content([text, refusal]) == "a\nb"
    assert made.content([text, sound]) == [{"type": "text", "text": "a"}, sound]
