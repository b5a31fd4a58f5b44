"""Answering with the content of a file: whole, a range of it, or that the caller has it already."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.errors import ClientDisconnected, GatewayError, RangeNotSatisfiable
from gateway.http.disconnect import Departure
from gateway.http.filename import attachment
from gateway.http.refusal import refuse

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope, Send
    from gateway.observability.exchange import Exchange

__all__ = ["Content", "Download"]

_HARMLESS = re.compile(
    r"text/(plain|csv|markdown|tab-separated-values)"
    r"|image/(png|jpeg|gif|webp|bmp|tiff|avif|heic)"
    r"|(audio|video)/[a-z0-9][a-z0-9.+-]*"
    r"|application/(json|jsonl|x-ndjson|pdf|zip|gzip|msword|rtf|epub\+zip|vnd\.[a-z0-9.-]+)"
)
"""Types that no browser runs. What else there is goes out as bytes."""

_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)
_MAX_DIGITS = 18


class Content(Struct, frozen=True, kw_only=True):
    """What can be downloaded.

    ``read(start, end)`` gives the bytes from ``start`` up to, not including, ``end``; it raises a
    ``GatewayError`` with the first block where there is nothing to read. ``digest`` names this
    content and no other.
    """

    filename: str
    media_type: str | None
    size: int
    digest: str
    read: Callable[[int, int], AsyncGenerator[bytes, None]]


class Download:
    """An ASGI application that answers one GET or HEAD.

    It reads no faster than the caller does, and stops when the caller leaves. Several ranges at
    once are answered with the whole, as HTTP allows.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._etag = f'"{content.digest}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["state"]["exchange"]
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self._is_known(given.get(b"if-none-match")):
                await _send_head(send, 304, self._validators())
                await _send_end(send)
                return
            found = self._range(given)
            with Departure(receive):
                await self._send(found, send, body=scope["method"] != "HEAD")
        except GatewayError as error:
            exchange.fail(error)
            if not exchange.answered and not isinstance(error, ClientDisconnected):
                await refuse(error, send)
            # Otherwise the answer ends short of its length, which every client notices.

    async def _send(self, found: tuple[int, int] | None, send: Send, *, body: bool) -> None:
        size = self._content.size
        start, end = found or (0, size)
        headers = [
            *self._validators(),
            (b"content-type", self._media_type()),
            (b"content-length", b"%d" % (end - start)),
            (b"content-disposition", attachment(self._content.filename).encode("ascii")),
        ]
        if found is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        status = 200 if found is None else 206
        if not body:
            await _send_head(send, status, headers)
        else:
            async with aclosing(self._content.read(start, end)) as blocks:
                block = await anext(blocks, b"")  # before the head: there may be nothing to read
                await _send_head(send, status, headers)
                while block:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                    block = await anext(blocks, b"")
        await _send_end(send)

    def _validators(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"etag", self._etag.encode("ascii")),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, no-cache"),  # ask again: it may have been deleted
        ]

    def _media_type(self) -> bytes:
        given = self._content.media_type or ""
        harmless = _HARMLESS.fullmatch(given) is not None and not given.endswith(("+xml", "html"))
        return given.encode("ascii") if harmless else b"application/octet-stream"

    def _is_known(self, header: str | None) -> bool:
        """Whether ``if-none-match`` names this content."""
        if header is None:
            return False
        tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
        return self._etag in tags or "*" in tags

    def _range(self, given: dict[bytes, str]) -> tuple[int, int] | None:
        """The bytes asked for as ``(start, end)``, ``None`` for all of them."""
        if given.get(b"if-range", self._etag) != self._etag:
            return None
        match = _RANGE.fullmatch(given.get(b"range", "").strip())
        if match is None or match[1] == match[2] == "":
            return None
        size = self._content.size
        if max(len(match[1]), len(match[2])) > _MAX_DIGITS:
            raise RangeNotSatisfiable(size)
        if match[1] == "":
            start, end = max(size - int(match[2]), 0), size
        else:
            start = int(match[1])
            end = min(int(match[2]) + 1, size) if match[2] else size
            if match[2] and int(match[2]) < start:
                return None
        if start >= min(end, size):
            raise RangeNotSatisfiable(size)
        return start, end


async def _send_head(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})
