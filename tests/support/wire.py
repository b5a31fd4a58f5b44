"""HTTP by hand: bytes out, and whatever comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

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
