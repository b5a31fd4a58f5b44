"""LlamaStack's `/v1alpha/file-processors/process`: a document's chunks, and nothing kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from tests.support.documents import make_encrypted_pdf, make_report_pdf
from tests.support.inprocess import InProcessGateway, until

pytestmark = pytest.mark.anyio

PATH = "/v1alpha/file-processors/process"
TEXT = "\n\n".join(f"Paragraph {number} says something of its own." for number in range(60))
SMALL = {
    "type": "static",
    "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
}


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessGateway]:
    folder = tmp_path_factory.mktemp("processors")
    async with InProcessGateway(data_dir=str(folder)) as gateway:
        yield gateway


async def process(
    gateway: InProcessGateway, content: bytes | None, name: str = "a.txt", **fields: Any
) -> httpx.Response:
    data = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()
    }
    files = {"file": (name, content)} if content is not None else {"none": (None, b"")}
    async with gateway.client() as client:
        return await client.post(PATH, data=data, files=files)


async def test_a_strategy_cuts_the_file(gateway: InProcessGateway):
    """In order, within the size, each with where it is from."""
    answer = (await process(gateway, TEXT.encode(), chunking_strategy=SMALL)).json()
    chunks = answer["chunks"]
    assert len(chunks) > 5
    for chunk in chunks:
        place = chunk["chunk_metadata"]
        assert place["content_token_count"] <= 100
        assert chunk["content"] == TEXT[place["start"] : place["end"]]
        assert place["source"] == "a.txt"
    assert len({chunk["chunk_id"] for chunk in chunks}) == len(chunks)
    assert answer["metadata"]["processor"] == "docling"


async def test_without_a_strategy_the_text_is_one_chunk(gateway: InProcessGateway):
    """As LlamaStack does it."""
    [chunk] = (await process(gateway, TEXT.encode())).json()["chunks"]
    assert chunk["content"] == TEXT


async def test_a_stored_file_is_processed_by_its_id(gateway: InProcessGateway):
    """The same chunks as of the file itself."""
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
        file = await client.files.create(file=("a.txt", TEXT.encode()), purpose="assistants")
    answer = (await process(gateway, None, file_id=file.id, chunking_strategy=SMALL)).json()
    assert [one["content"] for one in answer["chunks"]] == [
        one["content"]
        for one in (await process(gateway, TEXT.encode(), chunking_strategy=SMALL)).json()["chunks"]
    ]
    assert answer["chunks"][0]["metadata"]["document_id"] == file.id


async def test_a_pdf_has_pages_and_headings(gateway: InProcessGateway, tmp_path: Path):
    """What a citation needs is there."""
    content = make_report_pdf(tmp_path / "report.pdf").read_bytes()
    answer = await process(gateway, content, "report.pdf", chunking_strategy={"type": "auto"})
    places = [one["chunk_metadata"] for one in answer.json()["chunks"]]
    assert {page for place in places for page in place["pages"]} >= {1, 2}
    assert any(place["headings"] for place in places)
    assert answer.json()["metadata"]["page_count"] >= 2


@pytest.mark.parametrize(
    ("content", "fields", "param"),
    [
        (None, {}, "file"),
        (b"text", {"file_id": "file-1"}, "file"),
        (b"text", {"chunking_strategy": "{"}, "chunking_strategy"),
        (b"text", {"chunking_strategy": {"type": "other"}}, "chunking_strategy.type"),
        (
            b"text",
            {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 5}}},
            "chunking_strategy.static.max_chunk_size_tokens",
        ),
    ],
    ids=["no file", "two files", "no JSON", "no such strategy", "too small"],
)
async def test_what_is_wrong_is_named(gateway: InProcessGateway, content, fields, param):
    """A 400 with the parameter."""
    answer = await process(gateway, content, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_unknown_file_is_not_found(gateway: InProcessGateway):
    """By its id."""
    answer = await process(gateway, None, file_id="file-0123")
    assert answer.status_code == 404


async def test_a_file_that_can_t_be_read_is_the_caller_s_mistake(
    gateway: InProcessGateway, tmp_path: Path
):
    """The code says which kind, as in a vector store."""
    content = make_encrypted_pdf(tmp_path / "secret.pdf").read_bytes()
    answer = await process(gateway, content, "secret.pdf")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_file"


async def test_nothing_is_kept(gateway: InProcessGateway):
    """No object, and no file in the work folder, once it is answered."""
    await process(gateway, TEXT.encode())
    work = Path(gateway.settings.data_dir) / "work"
    await until(
        lambda: not [one for one in work.rglob("*") if one.name == "content"], "cleaning up"
    )
    objects = gateway.application.state.objects
    assert not [one async for one in objects.list("default/uploads/")]


async def test_a_caller_that_leaves_ends_the_work(gateway: InProcessGateway, monkeypatch):
    """The conversion is cancelled, not finished for nobody."""
    ended = asyncio.Event()

    async def convert(*_: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(gateway.application.state.converter, "convert", convert)
    async with gateway.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, files={"file": ("a.txt", b"text")}, timeout=0.5)
    async with asyncio.timeout(20):
        await ended.wait()
