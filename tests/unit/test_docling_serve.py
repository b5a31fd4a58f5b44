"""What the adapter for docling-serve says to it, and makes of its answers."""

from __future__ import annotations

import asyncio
import time

import pytest

from adapters.docling.remote import DoclingServeConverter
from gateway.ports import ConversionFailed
from gateway.settings import DocumentSettings, IngestionSettings
from tests.support import documents
from tests.support.docling_serve import DoclingServe

pytestmark = pytest.mark.anyio


@pytest.fixture
def serve():
    with DoclingServe(api_key="sesame") as server:
        yield server


@pytest.fixture
async def make(serve):
    made = []

    def run(api_key="sesame", url=serve.url, **ingestion):
        settings = DocumentSettings(converter="docling-serve", url=url, api_key=api_key)
        made.append(DoclingServeConverter(settings, IngestionSettings(**ingestion)))
        return made[-1]

    yield run
    for one in made:
        await one.aclose()


@pytest.fixture
def source(tmp_path):
    return documents.make_report_pdf(tmp_path / "source.pdf")


async def failure(converter, source, name="a.pdf"):
    with pytest.raises(ConversionFailed) as caught:
        await converter.convert(source, name, source.with_suffix(".json"))
    return caught.value


async def until_polled(serve, task):
    async with asyncio.timeout(20):
        while not any("/v1/status/" in line for line in serve.requests):
            assert not task.done()
            await asyncio.sleep(0.01)


@pytest.mark.alone
async def test_a_file_is_handed_in_polled_and_fetched_once(make, serve, source):
    """The result is docling-serve's JSON as it is."""
    serve.seconds = 0.4
    await make(max_pages=7).convert(source, "a.pdf", source.with_suffix(".json"))
    methods = [line.split("/")[2] for line in serve.requests]
    assert methods[0] == "convert"
    assert methods[1:-1] == ["status"] * (len(methods) - 2)
    assert len(methods) > 3
    assert methods[-1] == "result"
    assert serve.fields["to_formats"] == ["json"]
    assert serve.fields["do_ocr"] == ["false"]
    assert serve.fields["page_range"] == ["1", "8"]
    assert b"DoclingDocument" in source.with_suffix(".json").read_bytes()


async def test_the_name_of_a_file_stays_here(make, serve, source):
    """It may say more than the other system should know, and hold what breaks a form."""
    await make().convert(source, 'Kündigung "x"\r\n.pdf', source.with_suffix(".json"))
    assert serve.files == ["document.pdf"]


async def test_text_is_not_sent(make, serve, tmp_path):
    """It needs no conversion."""
    source = tmp_path / "a.txt"
    source.write_text("Seven keepers.")
    await make().convert(source, "a.txt", tmp_path / "a.json")
    assert serve.requests == []


async def test_a_wrong_key_is_the_operators_to_mend(make, source):
    """The message names the setting, and holds no key."""
    error = await failure(make(api_key="wrong-key"), source)
    assert (error.code, error.transient) == ("server_error", False)
    assert "documents.api_key" in error.message
    assert "wrong-key" not in error.message


async def test_a_busy_server_is_asked_again_later(make, serve, source):
    """While handing in, by the queue; while polling, at once."""
    serve.fail_next = 1
    error = await failure(make(), source)
    assert (error.code, error.transient) == ("server_error", True)
    serve.seconds = 1.0
    task = asyncio.create_task(make().convert(source, "a.pdf", source.with_suffix(".json")))
    await until_polled(serve, task)
    serve.fail_next = 2
    await task
    assert serve.fail_next == 0


async def test_a_server_that_is_not_there_is_transient(make, source):
    """The address isn't shown."""
    error = await failure(make(url="http://127.0.0.1:9"), source)
    assert (error.code, error.transient) == ("server_error", True)
    assert "127.0.0.1" not in error.message


async def test_a_task_that_crashed_is_transient(make, serve, source):
    """docling-serve has no result of it, and answers 404."""
    serve.crash_tasks = True
    error = await failure(make(), source)
    assert (error.code, error.transient) == ("server_error", True)
    assert "failed while it worked" in error.message


async def test_a_file_that_docling_cannot_read_is_invalid(make, source):
    """Although the answer is 200."""
    error = await failure(make(), documents.make_encrypted_pdf(source), "a.pdf")
    assert (error.code, error.transient) == ("invalid_file", False)
    assert "password" in error.message


async def test_a_conversion_that_takes_too_long_is_given_up(make, serve, source):
    """After ingestion.timeout_seconds."""
    serve.seconds = 30
    error = await failure(make(timeout_seconds=0.5), source)
    assert error.code == "invalid_file"
    assert "ingestion.timeout_seconds" in error.message


@pytest.mark.alone
async def test_cancelling_stops_the_polls(make, serve, source):
    """Nobody is asked about a file that nobody waits for."""
    serve.seconds = 30
    converter = make()
    task = asyncio.create_task(converter.convert(source, "a.pdf", source.with_suffix(".json")))
    await until_polled(serve, task)
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 5
    count = len(serve.requests)
    await asyncio.sleep(0.8)
    assert len(serve.requests) == count
