"""Forms as bytes, and as an application receives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

BOUNDARY = "simple"


def form(*parts: tuple[str, bytes], boundary: str = BOUNDARY, headers: str = "") -> bytes:
    """A form of parts, each given as what follows `form-data; ` and its content."""
    blocks = [
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{headers}\r\n".encode()
        + content
        + b"\r\n"
        for disposition, content in parts
    ]
    return b"".join(blocks) + f"--{boundary}--\r\n".encode()


def scope_of(content_type: str = f"multipart/form-data; boundary={BOUNDARY}", **headers: str):
    given = {"content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return {"headers": [(name.encode(), value.encode()) for name, value in given.items()]}


class Body:
    """An ASGI `receive` of these blocks; then the body is over, or the client is gone."""

    def __init__(self, blocks: Iterable[bytes], *, cut: bool = False) -> None:
        self._blocks = iter(blocks)
        self._cut = cut
        self.given = 0

    async def __call__(self) -> dict[str, Any]:
        block = next(self._blocks, None)
        if block is not None:
            self.given += len(block)
            return {"type": "http.request", "body": block, "more_body": True}
        if self._cut:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}


def split(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
