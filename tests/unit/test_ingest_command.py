"""`understudy ingest`: folders into a vector store over HTTP, against a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.ingestion.folder import find_files
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessGateway]:
    async with (
        FakeVllm(["fake-embedding"], kind="embedding") as upstream,
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-embedding"],
            data_dir=str(tmp_path_factory.mktemp("gateway")),
            ingestion={"attach_wait_seconds": 0.2},
        ) as gateway,
    ):
        yield gateway


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two texts, one of them in a sub-folder, and what is not taken."""
    folder = tmp_path / "manuals"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config.txt").write_text("hidden")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "boat.txt").write_text("The boat is blue.")
    (folder / "sub" / "lamp.txt").write_text("The lamp is yellow.")
    return folder


async def ingest(gateway: InProcessGateway, *arguments: object) -> Result:
    command = ["ingest", *map(str, arguments), "--base-url", gateway.base_url]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def stored(gateway: InProcessGateway, name: str) -> dict[str, Any]:
    """By path, the files of the store of this name."""
    async with gateway.client() as client:
        stores = (await client.get("/v1/vector_stores?limit=100")).json()["data"]
        [store] = [one["id"] for one in stores if one["name"] == name]
        files = (await client.get(f"/v1/vector_stores/{store}/files")).json()["data"]
        return {one["attributes"]["path"]: one for one in files}


async def test_a_folder_goes_into_a_new_store(gateway: InProcessGateway, folder: Path):
    """Every file is completed, with its path, its hash and the attributes that were given."""
    result = await ingest(gateway, folder, "--store", "new", "--attribute", "year=2024")
    assert result.exit_code == 0, result.output
    assert "2 added" in result.output
    files = await stored(gateway, "new")
    assert sorted(files) == ["manuals/boat.txt", "manuals/sub/lamp.txt"]
    assert {one["status"] for one in files.values()} == {"completed"}
    attributes = files["manuals/boat.txt"]["attributes"]
    assert attributes["year"] == 2024
    assert len(attributes["sha256"]) == 64


async def test_a_second_run_does_only_what_is_needed(gateway: InProcessGateway, folder: Path):
    """What is unchanged is skipped, what changed is replaced, new attributes are written."""
    await ingest(gateway, folder, "--store", "again")
    before = await stored(gateway, "again")
    (folder / "boat.txt").write_text("The boat is green now.")
    dry = await ingest(gateway, folder, "--store", "again", "--dry-run")
    assert "replace   manuals/boat.txt" in dry.output
    assert "skip      manuals/sub/lamp.txt" in dry.output
    assert await stored(gateway, "again") == before
    result = await ingest(gateway, folder, "--store", "again")
    assert "1 replaced" in result.output
    assert "1 unchanged" in result.output
    after = await stored(gateway, "again")
    assert sorted(after) == sorted(before)
    assert after["manuals/boat.txt"]["id"] != before["manuals/boat.txt"]["id"]
    assert after["manuals/sub/lamp.txt"]["id"] == before["manuals/sub/lamp.txt"]["id"]
    result = await ingest(gateway, folder, "--store", "again", "--attribute", "draft=true")
    assert "2 attributes changed" in result.output
    lamp = (await stored(gateway, "again"))["manuals/sub/lamp.txt"]
    assert lamp["attributes"]["draft"] is True


async def test_another_chunk_size_is_applied(gateway: InProcessGateway, folder: Path):
    """The same files are chunked anew; without an option they stay as they are."""
    await ingest(gateway, folder, "--store", "sizes", "--chunk-size", 200)
    before = await stored(gateway, "sizes")
    result = await ingest(gateway, folder, "--store", "sizes", "--chunk-size", 120)
    assert "2 chunked anew" in result.output
    after = await stored(gateway, "sizes")
    for path, file in after.items():
        assert file["status"] == "completed"
        assert file["id"] == before[path]["id"]
        assert file["chunking_strategy"]["static"]["max_chunk_size_tokens"] == 120
    for options in (["--chunk-size", 120], []):
        result = await ingest(gateway, folder, "--store", "sizes", *options)
        assert result.output.startswith("2 unchanged"), options


async def test_an_id_that_is_not_there_makes_no_store(gateway: InProcessGateway, folder: Path):
    """A mistyped id is said; it doesn't become the name of a new store."""
    result = await ingest(gateway, folder, "--store", "vs_mistyped")
    assert result.exit_code == 1
    assert "There is no vector store 'vs_mistyped'" in result.output
    async with gateway.client() as client:
        stores = (await client.get("/v1/vector_stores?limit=100")).json()["data"]
    assert "vs_mistyped" not in {one["name"] for one in stores}


async def test_a_base_url_without_v1_is_said(gateway: InProcessGateway, folder: Path):
    """The answer's 404 says nothing about what to change."""
    command = ["ingest", str(folder), "--store", "x", "--base-url", gateway.base_url + "/nowhere"]
    result = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert result.exit_code == 1
    assert "Does the base URL end in /v1?" in result.output


async def test_an_empty_folder_is_said(gateway: InProcessGateway, tmp_path: Path):
    """Nothing to do is no failure, and makes no store."""
    result = await ingest(gateway, tmp_path, "--store", "x")
    assert result.exit_code == 0
    assert result.output == "There are no files to ingest.\n"


async def test_a_file_that_fails_is_told_and_tried_again(gateway: InProcessGateway, folder: Path):
    """The others go in; the status is 1; the next run takes up only what failed."""
    (folder / "empty.txt").write_text(" \n")
    result = await ingest(gateway, folder, "--store", "failing")
    assert result.exit_code == 1
    assert "2 added, 1 failed" in result.output
    assert "empty.txt: " in result.output
    result = await ingest(gateway, folder, "--store", "failing")
    assert result.exit_code == 1
    assert "2 unchanged, 1 failed" in result.output
    (folder / "empty.txt").write_text("Not any more.")
    assert (await ingest(gateway, folder, "--store", "failing")).exit_code == 0


async def test_a_gateway_that_is_busy_is_asked_again(
    gateway: InProcessGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """429 and 503 are no reason to give up."""
    send, refused = httpx.AsyncClient.request, []

    async def request(self: httpx.AsyncClient, method: str, url: str, **options: Any) -> Any:
        if method == "POST" and len(refused) < 4:
            refused.append(url)
            status = 429 if len(refused) % 2 else 503
            answer = httpx.Response(status, headers={"retry-after-ms": "10"})
            answer.request = httpx.Request(method, self.base_url)
            return answer
        return await send(self, method, url, **options)

    monkeypatch.setattr(httpx.AsyncClient, "request", request)
    result = await ingest(gateway, folder, "--store", "busy")
    assert result.exit_code == 0, result.output
    assert len(refused) == 4
    assert len(await stored(gateway, "busy")) == 2


async def test_what_can_t_be_reached_is_said(folder: Path):
    """A wrong address ends soon, and with a sentence instead of a traceback."""
    result = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["ingest", str(folder), "--store", "x", "--base-url", "http://127.0.0.1:9/v1"],
    )
    assert result.exit_code == 1
    assert "can't be reached" in result.output


async def test_wrong_options_are_refused(gateway: InProcessGateway, folder: Path):
    """Before anything is sent."""
    for options in (
        ["--attribute", "nothing"],
        ["--attribute", "path=mine"],
        ["--chunk-size", 200, "--overlap", 150],
    ):
        result = await ingest(gateway, folder, "--store", "wrong", *options)
        assert result.exit_code == 2, options


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    """One would replace the other in the store."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text(name)
    files = [tmp_path / name / "same.txt" for name in ("one", "two")]
    with pytest.raises(ValueError, match=r"both be 'same.txt'"):
        find_files(files)
    assert len(find_files([tmp_path])) == 2
