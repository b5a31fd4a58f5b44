"""A file of any size passes through the gateway in small pieces: uploaded whole, put together from
parts, and downloaded, it costs the process a few tens of megabytes at most."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import HOST, GatewayProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

NOBODY = f"http://{HOST}:9/v1"
"""A model server that isn't there; files need none."""

MIB = 1024 * 1024
BLOCK = bytes(range(256)) * (MIB // 256)
FILE_MIB = 640
PART_MIB = 64
MAX_GROWTH_MIB = 60
HEAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--b\r\ncontent-disposition: form-data; name="%s"; filename="large.bin"\r\n\r\n'
)
TAIL = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
async def gateway():
    config = {"discover": [NOBODY], "limits": {"max_file_bytes": FILE_MIB * MIB}}
    async with GatewayProcess(config) as gateway:
        await asyncio.to_thread(post_file, gateway, "/v1/files", b"file", 1)  # warm
        yield gateway


def post_file(gateway: GatewayProcess, path: str, field: bytes, mib: int) -> tuple[int, Any]:
    """Send a form with a file of this size, block by block, as a file on a disk would be sent."""
    head = HEAD % field
    caller = http.client.HTTPConnection(HOST, gateway.port, timeout=120)
    try:
        caller.putrequest("POST", path)
        caller.putheader("content-type", "multipart/form-data; boundary=b")
        caller.putheader("content-length", str(len(head) + mib * MIB + len(TAIL)))
        caller.endheaders()
        caller.send(head)
        for _ in range(mib):
            caller.send(BLOCK)
        caller.send(TAIL)
        answer = caller.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        caller.close()


def post_json(gateway: GatewayProcess, path: str, body: dict[str, Any]) -> Any:
    caller = http.client.HTTPConnection(HOST, gateway.port, timeout=120)
    try:
        caller.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = json.loads(caller.getresponse().read())
    finally:
        caller.close()
    return answer


def download(gateway: GatewayProcess, file_id: str) -> str:
    """The sha256 of what comes."""
    caller = http.client.HTTPConnection(HOST, gateway.port, timeout=120)
    digest = hashlib.sha256()
    try:
        caller.request("GET", f"/v1/files/{file_id}/content")
        answer = caller.getresponse()
        while block := answer.read(MIB):
            digest.update(block)
    finally:
        caller.close()
    return digest.hexdigest()


def expected() -> str:
    digest = hashlib.sha256()
    for _ in range(FILE_MIB):
        digest.update(BLOCK)
    return digest.hexdigest()


def rss_mib(gateway: GatewayProcess) -> float:
    """What the process holds now."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@asynccontextmanager
async def growing_little(gateway: GatewayProcess) -> AsyncIterator[None]:
    """The process grows by less than the ceiling while the block runs."""
    before = most = rss_mib(gateway)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, rss_mib(gateway))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
    print(f"{before:.0f} MiB grew to {most:.0f} MiB")
    assert most - before < MAX_GROWTH_MIB, f"{before:.0f} MiB grew to {most:.0f} MiB"


async def run(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


async def test_a_large_file_is_streamed_in_and_out(gateway):
    """640 MiB up, and the same bytes down again."""
    async with growing_little(gateway):
        status, file = await run(post_file, gateway, "/v1/files", b"file", FILE_MIB)
    assert status == 200, file
    assert file["bytes"] == FILE_MIB * MIB
    async with growing_little(gateway):
        assert await run(download, gateway, file["id"]) == await run(expected)


async def test_a_large_file_is_put_together_from_parts(gateway):
    """Ten parts of 64 MiB, each streamed in, and streamed into one."""
    upload = await run(
        post_json,
        gateway,
        "/v1/uploads",
        {
            "bytes": FILE_MIB * MIB,
            "filename": "large.bin",
            "mime_type": "text/plain",
            "purpose": "batch",
        },
    )
    path = f"/v1/uploads/{upload['id']}"
    async with growing_little(gateway):
        parts = []
        for _ in range(FILE_MIB // PART_MIB):
            status, part = await run(post_file, gateway, f"{path}/parts", b"data", PART_MIB)
            assert status == 200, part
            parts.append(part["id"])
        done = await run(post_json, gateway, f"{path}/complete", {"part_ids": parts})
    assert done["status"] == "completed", done
    assert await run(download, gateway, done["file"]["id"]) == await run(expected)


async def test_what_is_larger_than_the_limit_is_refused(gateway):
    """413 names the setting, the caller gets to see it, and nothing of the file stays."""
    async with growing_little(gateway):
        status, answer = await run(post_file, gateway, "/v1/files", b"file", FILE_MIB + 1)
    assert status == 413
    assert "limits.max_file_bytes" in answer["error"]["message"]
    assert answer["error"]["param"] == "file"
    objects = gateway.folder / "understudy-data" / "objects"
    assert not [*(objects / ".writing").iterdir()]


async def test_many_uploads_at_once_are_small_together(gateway):
    """Sixteen callers with 16 MiB each hold a block or two each, and not their files."""
    async with growing_little(gateway):
        answers = await asyncio.gather(
            *(run(post_file, gateway, "/v1/files", b"file", 16) for _ in range(16))
        )
    assert {status for status, _ in answers} == {200}
