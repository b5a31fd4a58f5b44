"""HTTP by hand: bytes out, and whatever comes back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import httptools

from tests.support.gateway import HOST


@dataclass
class Said:
    """What a server answered before it closed, or before it was silent for a while."""

    text: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.text)]


async def say(port: int, blocks: bytes | Iterable[bytes], *, patience: float = 2.0) -> Said:
    """Send these blocks on a connection of their own. Reading ends ``patience`` seconds later, or
    with the first whole answer that is followed by silence."""
    reader, writer = await asyncio.open_connection(HOST, port)
    heard, closed = bytearray(), False

    async def listen() -> None:
        nonlocal closed
        try:
            while block := await reader.read(65536):
                heard.extend(block)
            closed = True
        except ConnectionError:
            closed = True

    listening = asyncio.create_task(listen())
    try:
        for block in [blocks] if isinstance(blocks, bytes) else blocks:
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        pass  # it had enough; what it said is still to be read
    try:
        deadline = asyncio.get_running_loop().time() + patience
        size = -1
        while not listening.done() and asyncio.get_running_loop().time() < deadline:
            if heard and size == len(heard):
                break
            size = len(heard)
            await asyncio.wait([listening], timeout=0.2)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        writer.close()
    return Said(bytes(heard), closed)


@dataclass
class Answer:
    """A whole answer, with the names that `httpx.Response` has."""

    status_code: int
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)


class Poster:
    """Posts JSON on one connection that is kept: for tests that ask thousands of times."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: bytes) -> Answer:
        if self._connection is None:
            self._connection = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._connection
        head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {len(content)}\r\n"
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + content)
        heard = _Heard()
        while not heard.whole:
            block = await reader.read(65536)
            assert block, "the connection ended before the answer"
            heard.parser.feed_data(block)
        if not heard.parser.should_keep_alive():
            self._close()
        return Answer(heard.parser.get_status_code(), b"".join(heard.blocks))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


class _Heard:
    """What `httptools` calls while it reads an answer."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.whole = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, block: bytes) -> None:
        self.blocks.append(block)

    def on_message_complete(self) -> None:
        self.whole = True
