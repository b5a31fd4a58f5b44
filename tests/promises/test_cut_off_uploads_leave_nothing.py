"""An upload that breaks off never becomes a file, and one that was acknowledged is never lost:
whoever breaks off, the caller or the gateway, and whenever."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import random
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from adapters.disk import DiskObjectStore
from tests.support.gateway import HOST, GatewayProcess

pytestmark = pytest.mark.anyio

NOBODY = f"http://{HOST}:9/v1"
"""A model server that isn't there; files need none."""

KIB = 1024
FORM_HEAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
    b'--b\r\ncontent-disposition: form-data; name="%s"; filename="a.bin"\r\n\r\n'
)
FORM_TAIL = b"\r\n--b--\r\n"
ROUNDS = 6
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, as a machine that goes down would after a while."""


@pytest.fixture
async def gateway():
    async with GatewayProcess({"discover": [NOBODY]}) as gateway:
        yield gateway


def request(path: str, field: bytes, content: bytes) -> bytes:
    body = FORM_HEAD % field + content + FORM_TAIL
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def objects_of(gateway: GatewayProcess) -> Path:
    return gateway.folder / "understudy-data" / "objects"


def leftovers(gateway: GatewayProcess) -> set[Path]:
    """All that is in the object store, finished or not."""
    return {path for path in objects_of(gateway).rglob("*") if path.is_file()}


async def nothing_left(gateway: GatewayProcess) -> None:
    """Within a moment: an upload ends when its connection does."""
    deadline = asyncio.get_running_loop().time() + 20
    while found := leftovers(gateway):
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.02)


async def send_some(gateway: GatewayProcess, whole: bytes, length: int, *, reset: bool) -> None:
    """Send so much of a request, wait until it has arrived, and leave."""
    reader, writer = await asyncio.open_connection(HOST, gateway.port)
    writer.write(whole[:length])
    await writer.drain()
    if length > 400 * KIB:
        while not leftovers(gateway):
            await asyncio.sleep(0.005)
    if reset:
        plain: socket.socket = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    del reader


def listed(gateway: GatewayProcess) -> list[dict[str, Any]]:
    status, body = gateway.get("/v1/files")
    assert status == 200
    return json.loads(body)["data"]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_caller_who_leaves_leaves_nothing(gateway, reset):
    """Anywhere in the request: in its head, in the file, just before the form's last line."""
    whole = request("/v1/files", b"file", os.urandom(3000 * KIB))
    places = [0, 40, 200, 300, 500 * KIB, 2000 * KIB, len(whole) - 9, len(whole) - 3]
    for length in places:
        await send_some(gateway, whole, length, reset=reset)
    await nothing_left(gateway)
    assert listed(gateway) == []


async def test_a_caller_who_leaves_leaves_no_part(gateway):
    """The same for a part of an upload, which can then be sent again."""
    made = post(
        gateway,
        "/v1/uploads",
        json.dumps(
            {"bytes": 4, "filename": "a", "mime_type": "text/plain", "purpose": "batch"}
        ).encode(),
        "application/json",
    )
    whole = request(f"/v1/uploads/{made['id']}/parts", b"data", os.urandom(1000 * KIB))
    for length in (200, 900 * KIB, len(whole) - 3):
        await send_some(gateway, whole, length, reset=True)
    await nothing_left(gateway)


def post(gateway: GatewayProcess, path: str, body: bytes, content_type: str) -> dict[str, Any]:
    caller = http.client.HTTPConnection(HOST, gateway.port, timeout=20)
    try:
        caller.request("POST", path, body, {"content-type": content_type})
        answer = caller.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())
    finally:
        caller.close()


async def test_a_gateway_that_is_killed_half_way_has_no_half_file(gateway):
    """What it was writing is no object, and is swept away once it is old enough."""
    whole = request("/v1/files", b"file", os.urandom(3000 * KIB))
    _, writer = await asyncio.open_connection(HOST, gateway.port)
    writer.write(whole[: 2000 * KIB])
    while not leftovers(gateway):
        await asyncio.sleep(0.005)
    gateway.kill()
    writer.close()
    await asyncio.to_thread(gateway.start)
    assert listed(gateway) == []
    assert {path.parent.name for path in leftovers(gateway)} <= {".writing"}
    store = DiskObjectStore(objects_of(gateway))
    assert [found async for found in store.list("")] == []
    await store.sweep(0)
    await store.aclose()
    assert leftovers(gateway) == set()


async def test_what_was_acknowledged_outlives_every_kill(gateway):
    """Killed at random while files come in: each file that was answered for is there, whole, and
    nothing is listed that isn't."""
    chance = random.Random(8321)
    acknowledged: dict[str, str] = {}

    def upload_until_killed() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                content = os.urandom(chance.randrange(1, 300 * KIB))
                body = FORM_HEAD % b"file" + content + FORM_TAIL
                made = post(gateway, "/v1/files", body, "multipart/form-data; boundary=b")
                acknowledged[made["id"]] = hashlib.sha256(content).hexdigest()

    for _ in range(ROUNDS):
        callers = [asyncio.to_thread(upload_until_killed) for _ in range(3)]
        uploading = asyncio.gather(*callers)
        await asyncio.sleep(0.1 + chance.random() * 0.4)
        gateway.kill()
        await uploading
        await asyncio.to_thread(gateway.start)
    assert acknowledged
    found = {file["id"]: file for file in listed(gateway)}
    assert acknowledged.keys() <= found.keys()
    for file_id, file in found.items():
        status, content = gateway.get(f"/v1/files/{file_id}/content")
        assert (status, len(content)) == (200, file["bytes"])
        if file_id in acknowledged:
            assert hashlib.sha256(content).hexdigest() == acknowledged[file_id]
