"""A document can't hold up, fill up or take over the gateway, and reaches no network."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.docling import DoclingConverter
from gateway.ports import ChunkSizes, ConversionFailed
from gateway.settings import DocumentSettings, IngestionSettings
from tests.support import documents

pytestmark = pytest.mark.anyio

SLOW = ChunkSizes(max_chunk_size_tokens=100, chunk_overlap_tokens=50)
"""Chunks of eight million letters without a space take many seconds."""

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def make():
    made = []

    def run(documents=None, **ingestion):
        settings = DocumentSettings(**(documents or {}))
        made.append(DoclingConverter(settings, IngestionSettings(**ingestion)))
        return made[-1]

    yield run
    for one in made:
        await one.aclose()


@pytest.fixture
async def slow(make, tmp_path):
    """A converted document that is slow to cut."""
    source, into = tmp_path / "giant.txt", tmp_path / "giant.json"
    source.write_text("a" * 8_000_000)
    converter = make()
    await converter.convert(source, source.name, into)
    await converter.aclose()
    return into


@pytest.fixture
def small(tmp_path):
    source = tmp_path / "small.txt"
    source.write_text("Seven keepers.")
    return source


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def told(pid: int) -> str:
    """The environment and the arguments of a process."""
    process = Path(f"/proc/{pid}")
    return (process / "environ").read_text() + (process / "cmdline").read_text()


async def gone(*pids: int, within: float) -> bool:
    begun = time.monotonic()
    while any(alive(pid) for pid in pids):
        if time.monotonic() - begun > within:
            return False
        await asyncio.sleep(0.02)
    return True


@pytest.mark.alone
async def test_a_document_that_takes_too_long_is_ended(make, slow, small, tmp_path):
    """At the limit, with its process; the next one is converted."""
    converter = make(timeout_seconds=1.5)
    await converter.convert(small, small.name, tmp_path / "small.json")
    (pid,) = converter.pool.process_ids
    begun = time.monotonic()
    with pytest.raises(ConversionFailed) as caught:
        await converter.chunk(slow, SLOW)
    assert 1.4 < time.monotonic() - begun < 3
    assert caught.value.code == "invalid_file"
    assert "ingestion.timeout_seconds" in caught.value.message
    assert await gone(pid, within=1)
    await converter.convert(small, small.name, tmp_path / "small.json")


@pytest.mark.alone
async def test_cancelling_kills_within_a_second(make, slow, small, tmp_path):
    """The work of a caller who left doesn't go on in the background."""
    converter = make()
    await converter.convert(small, small.name, tmp_path / "small.json")
    (pid,) = converter.pool.process_ids
    task = asyncio.create_task(converter.chunk(slow, SLOW))
    await asyncio.sleep(0.5)
    assert alive(pid)
    task.cancel()
    assert await gone(pid, within=1)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("watched", [False, True], ids=["refused", "watched"])
async def test_a_document_that_takes_too_much_memory_is_ended(make, small, tmp_path, watched):
    """By a limit inside its process and, where that can't be set, by the pool that watches it."""
    source = tmp_path / "large.txt"
    source.write_bytes(b"word " * 40_000_000)
    settings = {"process_memory_bytes": 240 * 1024**2}
    if watched:  # torch reserves more than it uses, so there the limit inside is not set
        settings["models_path"] = str(tmp_path)
    converter = make(settings)
    with pytest.raises(ConversionFailed) as caught:
        await converter.convert(source, source.name, tmp_path / "large.json")
    assert caught.value.code == "invalid_file"
    assert "documents.process_memory_bytes" in caught.value.message
    assert not (tmp_path / "large.json").exists()
    await converter.convert(small, small.name, tmp_path / "small.json")


@pytest.mark.alone
async def test_a_bomb_is_not_unpacked(make, tmp_path):
    """What an archive says of its size is read before anything else in it."""
    bomb = documents.make_bomb(tmp_path / "bomb.docx")
    converter = make(max_unzipped_bytes=1024**2)
    begun = time.monotonic()
    with pytest.raises(ConversionFailed, match=r"ingestion\.max_unzipped_bytes"):
        await converter.convert(bomb, bomb.name, tmp_path / "bomb.json")
    assert time.monotonic() - begun < 5


async def test_too_many_chunks_are_refused(make, slow):
    """Before they fill the memory of the gateway."""
    with pytest.raises(ConversionFailed, match=r"ingestion\.max_chunks"):
        await make(max_chunks=20).chunk(slow, SLOW)


async def test_a_converter_that_dies_is_replaced(make, slow, small, tmp_path):
    """The file may be tried again: it need not have been to blame."""
    converter = make()
    await converter.convert(small, small.name, tmp_path / "small.json")
    (pid,) = converter.pool.process_ids
    task = asyncio.create_task(converter.chunk(slow, SLOW))
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGSEGV)
    with pytest.raises(ConversionFailed) as caught:
        await task
    assert caught.value.transient
    assert caught.value.code == "server_error"
    await converter.convert(small, small.name, tmp_path / "small.json")
    assert converter.pool.process_ids != [pid]


async def test_there_are_never_more_processes_than_set(make, slow):
    """Others wait for their turn."""
    converter = make({"processes": 2})
    tasks = [asyncio.create_task(converter.chunk(slow, SLOW)) for _ in range(5)]
    most = 0
    for _ in range(20):
        most = max(most, len(converter.pool.process_ids))
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2


async def test_processes_are_reused_and_then_replaced(make, small, tmp_path):
    """One serves ``documents.process_jobs`` documents."""
    converter = make({"process_jobs": 2})
    seen = []
    for _ in range(4):
        await converter.convert(small, small.name, tmp_path / "small.json")
        seen.append(tuple(converter.pool.process_ids))
    assert seen[0] != ()
    assert seen[1] == ()
    assert seen[2] not in {(), seen[0]}


@pytest.mark.alone
async def test_closing_ends_all_processes(make, slow, small, tmp_path):
    """The busy ones too, and what they worked on may be tried again."""
    converter = make({"processes": 2})
    task = asyncio.create_task(converter.chunk(slow, SLOW))
    await converter.convert(small, small.name, tmp_path / "small.json")
    pids = converter.pool.process_ids
    assert len(pids) == 2
    await converter.aclose()
    assert await gone(*pids, within=1)
    with pytest.raises(ConversionFailed) as caught:
        await task
    assert caught.value.transient


@pytest.mark.alone
async def test_the_event_loop_is_never_held_up(make, slow, tmp_path):
    """Other requests are answered while a large document is converted and cut."""
    source = tmp_path / "words.txt"
    source.write_text("seven keepers live on the island " * 60_000)
    converter = make()
    gaps = []

    async def beat():
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - begun)

    beating = asyncio.create_task(beat())
    await converter.convert(source, source.name, tmp_path / "words.json")
    chunks = await converter.chunk(tmp_path / "words.json", SLOW)
    beating.cancel()
    assert len(chunks) > 5000
    assert sorted(gaps)[-3] < 0.25


PARENT = """
import asyncio, sys
from pathlib import Path
from adapters.docling import DoclingConverter
from gateway.ports import ChunkSizes
from gateway.settings import DocumentSettings, IngestionSettings

async def main():
    converter = DoclingConverter(DocumentSettings(processes=2), IngestionSettings())
    asyncio.create_task(converter.chunk(Path(sys.argv[1]), ChunkSizes(
        max_chunk_size_tokens=100, chunk_overlap_tokens=50)))
    await converter.convert(Path(sys.argv[2]), "small.txt", Path(sys.argv[2]).with_suffix(".json"))
    print(*converter.pool.process_ids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.alone
async def test_converters_die_with_the_gateway(slow, small):
    """Also when it is killed and can't tell them: the busy one and the idle one."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, slow, small, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    line = await asyncio.wait_for(parent.stdout.readline(), 30)
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    assert await gone(*pids, within=2)


TRAP = """
import os, sys
def hook(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
        with open(os.path.join(os.path.dirname(__file__), "tried"), "a") as file:
            file.write(event)
        raise OSError("there is no network")
sys.addaudithook(hook)
open(os.path.join(os.path.dirname(__file__), "armed"), "w").close()
"""


async def test_no_network_is_needed(make, tmp_path, monkeypatch):
    """Every format is converted and cut in processes in which any attempt to connect fails."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(TRAP)
    monkeypatch.setenv("PYTHONPATH", str(trap))
    page = tmp_path / "page.html"
    page.write_text('<h1>Light</h1><img src="http://127.0.0.1:9/a.png"><p>Seven keepers.</p>')
    sources = [
        documents.make_report_pdf(tmp_path / "a.pdf"),
        documents.make_docx(tmp_path / "a.docx"),
        documents.make_pptx(tmp_path / "a.pptx"),
        documents.make_xlsx(tmp_path / "a.xlsx"),
        page,
    ]
    converter = make()
    for source in sources:
        into = tmp_path / "converted.json"
        await converter.convert(source, source.name, into)
        assert await converter.chunk(into, ChunkSizes())
    assert (trap / "armed").exists()
    assert not (trap / "tried").exists()


async def test_no_secret_is_given_to_a_converter(make, small, tmp_path, monkeypatch):
    """Its environment is a short list of names, whatever the gateway's holds."""
    monkeypatch.setenv("UNDERSTUDY_OBJECTS__SECRET_KEY", "hush-hush")
    converter = make({"api_key": "hush-hush-too"})
    await converter.convert(small, small.name, tmp_path / "small.json")
    (pid,) = converter.pool.process_ids
    assert "hush" not in told(pid)
