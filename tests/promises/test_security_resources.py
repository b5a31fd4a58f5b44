"""One caller's request takes a bounded share: of what is read, kept, unpacked and answered."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

import gateway.app
from gateway.app import create_app
from gateway.contract import openapi_document
from gateway.settings import Settings
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

UNPAGED = {
    "listModels": "as many as the configuration and the model servers name",
    "listProviders": "as many as there are model servers",
    "listRoutes": "as many as there are routes",
    "listPrompts": "10000 versions and 64 MiB in a project (prompts/service.py)",
    "listPromptVersions": "the same",
    "listShields": "1000 in a project (shields/service.py)",
    "listToolGroups": "200 in a project (tools/groups.py)",
    "listTools": "the tools of those, each group's list bounded (adapters/mcp)",
    "listRuntimeTools": "the same",
    "listConnectors": "as many as the configuration names",
    "listConnectorTools": "one server's tools, bounded (adapters/mcp)",
}
"""Lists that LlamaStack has without pages, and what bounds them."""


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.app, "_vector_index", lambda *_: MemoryVectorIndex())
        async with (
            FakeVllm(["fake-chat"]) as chat,
            FakeVllm(["fake-embedding"], kind="embedding") as embedding,
            InProcessGateway(
                discover=[chat.url, embedding.url],
                models=["fake-chat", "fake-embedding"],
                data_dir=str(tmp_path_factory.mktemp("resources")),
                traced=False,
                limits={"max_body_bytes": 1_000_000, "max_file_bytes": 1_000_000},
            ) as running,
            running.client() as client,
        ):
            yield client


def test_every_list_is_bounded():
    """By a limit that has a maximum; the few without pages are bounded in what they hold."""
    document = openapi_document(create_app(Settings()).handlers)
    lists, unpaged = 0, set()
    for methods in document["paths"].values():
        operation = methods.get("get", {})
        name = operation.get("operationId", "").partition("_")[0]
        limits = [one for one in operation.get("parameters", ()) if one["name"] == "limit"]
        if limits:
            assert limits[0]["schema"]["maximum"] <= 10_000, name
            lists += 1
        elif name.startswith("list"):
            unpaged.add(name)
    assert lists >= 10
    assert unpaged == set(UNPAGED)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/vector_stores", "/v1/files"]
)
async def test_no_compressed_body_is_unpacked(http, path, coding):
    """So that a few bytes never become a gigabyte: 415, which names the header."""
    packed = zlib.compress if coding == "deflate" else gzip.compress
    if path == "/v1/files":
        kind = "multipart/form-data; boundary=x"
        body = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    else:
        kind, body = (
            "application/json",
            json.dumps({"model": "fake-chat", "a": " " * 9**6}).encode(),
        )
    answer = await http.post(
        path, content=packed(body), headers={"content-type": kind, "content-encoding": coding}
    )
    assert refused(answer, 415)["param"] == "content-encoding"


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/conversations", "/v1/batches"],
)
async def test_a_body_is_bounded_whether_its_length_is_told_or_not(http, path):
    """413, before it is read where it is told, and as soon as it is too much where it isn't."""

    async def blocks() -> AsyncIterator[bytes]:
        yield b'{"model": "'
        for _ in range(200):
            yield b"a" * 65_536
        yield b'"}'

    headers = {"content-type": "application/json"}
    for content in (b'{"model": "' + b"a" * 13_000_000 + b'"}', blocks()):
        try:
            answer = await http.post(path, content=content, headers=headers)
        except httpx.TransportError:  # refused while it was still sending
            continue
        assert refused(answer, 413)["code"] == "request_too_large"


async def test_the_bounds_of_maps_are_kept_on_every_route(http):
    """16 pairs, 64 characters of a key and 512 of a value, wherever metadata can be given."""
    many = {f"k{one}": "v" for one in range(17)}
    for odd in (many, {"k" * 65: "v"}, {"k": "v" * 513}):
        for path, body in {
            "/v1/vector_stores": {},
            "/v1/conversations": {},
            "/v1/responses": {"model": "fake-chat", "input": "hi"},
            "/v1/batches": {
                "input_file_id": "file-a",
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        }.items():
            answer = await http.post(path, json={**body, "metadata": odd})
            error = refused(answer, 400)
            assert error["param"].startswith("metadata"), path


async def test_a_query_is_bounded(http):
    """In its parameters, and each of them counts once."""
    assert refused(await http.get("/v1/files?" + "a[]=1&" * 101), 400)["code"] == (
        "too_many_parameters"
    )
    error = refused(await http.get("/v1/files?limit=1&limit=100"), 400)
    assert (error["param"], error["code"]) == ("limit", "duplicate_parameter")
    assert (await http.get("/v1/files?limit=1&unknown[]=1&unknown[]=2")).status_code == 200
