"""All objects of one kind in one namespace, kept up to date by the API server's watch.

A list gives them all and a version; a watch from that version tells of every change after it. The
server forgets old versions (410 Gone): then they are listed anew. While nothing can be learnt,
what was known last stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct, field

__all__ = ["ListFailed", "Listed", "Metadata", "ResourceWatch"]

logger = logging.getLogger(__name__)

WATCH_SECONDS = 100.0
"""How long the server is asked to keep a watch open."""
SILENCE_SECONDS = WATCH_SECONDS + 20.0
"""A watch that was cut off without a word is given up after so long."""
PAGE = 250
MOST_OBJECTS = 5000
"""Of one namespace; more are left out, with a warning."""
MAX_BYTES = 64 * 1024 * 1024
"""Of one page and of one event."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 1.0
"""A watch that lasted so long is begun again at once."""

_GONE = 410

ShapeT = TypeVar("ShapeT")


class Metadata(Struct, frozen=True, rename="camel"):
    """What every object has."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    deletion_timestamp: str | None = None


class Listed(Struct, frozen=True, kw_only=True):
    """An object with its kind's fields still as bytes."""

    metadata: Metadata
    raw: msgspec.Raw


class ListFailed(Exception):
    """The API server can't be reached or refuses; the message says what helps."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Headed(Struct, frozen=True):
    metadata: Metadata = field(default_factory=Metadata)


class _ListMetadata(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(name="continue", default=None)


class _List(Struct, frozen=True):
    items: list[msgspec.Raw] = field(default_factory=list)
    metadata: _ListMetadata = field(default_factory=_ListMetadata)


class _Event(Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(Struct, frozen=True):
    code: int | None = None
    message: str = ""


class _Gone(Exception):
    """The server doesn't know the version any more."""


class ResourceWatch:
    """``path`` is that of the kind in its namespace, from the API server's root.

    ``known`` are the objects by name, as they were last heard of.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        path: str,
        *,
        label_selector: str | None = None,
        resync_seconds: float = 300.0,
    ) -> None:
        self._client = client
        self._path = path
        self._selector = {"labelSelector": label_selector} if label_selector else {}
        self._resync = resync_seconds
        self.known: Mapping[str, Listed] = {}
        self.listed = False
        """Whether they were listed once."""
        self._version: str | None = None
        """From which to watch; ``None`` where they must be listed first."""
        self._said: str | None = None

    async def list(self) -> None:
        """Learn all of them. Raises ``ListFailed``."""
        try:
            await self._list()
        except _Gone:  # of a page: what it was part of is forgotten by now
            raise ListFailed("the list changed too quickly to be read") from None

    async def _list(self) -> None:
        found: dict[str, Listed] = {}
        params: dict[str, Any] = {"limit": PAGE, **self._selector}
        while True:
            page = await self._page(params)
            for raw in page.items:
                if len(found) < MOST_OBJECTS:
                    one = _listed(raw)
                    found[one.metadata.name] = one
            if not page.metadata.continue_ or len(found) >= MOST_OBJECTS:
                break
            params["continue"] = page.metadata.continue_
        if len(found) >= MOST_OBJECTS:
            logger.warning("%s: more than %d objects; the rest is left out", self._path, len(found))
        self.known = found
        self.listed = True
        self._version = page.metadata.resource_version

    async def changes(self) -> AsyncIterator[None]:
        """Whenever ``known`` has changed, and once when it was first learnt. Never ends.

        Failures are logged, each kind once, and tried again with growing pauses.
        """
        pause = FIRST_PAUSE_SECONDS
        stale_at = 0.0
        while True:
            began = time.monotonic()
            try:
                if self._version is None or time.monotonic() >= stale_at:
                    await self.list()
                    stale_at = time.monotonic() + self._resync
                    yield
                async for _ in self._watch():
                    yield
                self._note(None)
            except _Gone:
                self._version = None
            except ListFailed as error:
                self._note(str(error))
            else:
                if time.monotonic() - began >= STEADY_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                    continue
            # A server that is away, forgets at once or ends each watch at once is not pressed.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (no secret)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _page(self, params: Mapping[str, Any]) -> _List:
        body = bytearray()
        try:
            async with self._client.stream("GET", self._path, params=params) as response:
                async for block in response.aiter_bytes():
                    body += block
                    if len(body) > MAX_BYTES:
                        raise ListFailed("a list that is too large")
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code == _GONE:  # the pages are of a version that is forgotten by now
            raise _Gone
        if response.status_code != 200:
            raise _refused(response.status_code, bytes(body))
        return _decode(bytes(body), _List)

    async def _watch(self) -> AsyncIterator[None]:
        """After each change to ``known``. Ends when the server ends it."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(WATCH_SECONDS)),
            **self._selector,
        }
        timeout = httpx.Timeout(15.0, connect=5.0, read=SILENCE_SECONDS)
        try:
            async with self._client.stream(
                "GET", self._path, params=params, timeout=timeout
            ) as response:
                if response.status_code == _GONE:
                    raise _Gone
                if response.status_code != 200:
                    raise _refused(response.status_code, await response.aread())
                async for line in _lines(response):
                    event = _decode(line, _Event)
                    if event.type == "ERROR":
                        status = _decode(bytes(event.object), _Status)
                        if status.code == _GONE:
                            raise _Gone
                        raise ListFailed(f"the watch failed: {status.message[:300]}")
                    one = _listed(event.object)
                    self._version = one.metadata.resource_version or self._version
                    if self._apply(event.type, one):
                        yield
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    def _apply(self, kind: str, one: Listed) -> bool:
        """Whether that changed anything; a bookmark only tells the version."""
        known = dict(self.known)
        if kind == "DELETED":
            known.pop(one.metadata.name, None)
        elif kind in ("ADDED", "MODIFIED") and (
            one.metadata.name in known or len(known) < MOST_OBJECTS
        ):
            known[one.metadata.name] = one
        else:
            return False
        self.known = known
        return True

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._said:
            logger.warning(
                "%s: %s; what was known stays, and it is tried again", self._path, problem
            )
        elif problem is None and self._said is not None:
            logger.info("%s: watched again", self._path)
        self._said = problem


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The stream's lines, none of them without a bound."""
    rest = bytearray()
    async for block in response.aiter_bytes():
        rest += block
        *lines, last = rest.split(b"\n")
        for line in lines:
            if line.strip():
                yield bytes(line)
        rest = bytearray(last)
        if len(rest) > MAX_BYTES:
            raise ListFailed("an event that is too large")


def _listed(raw: msgspec.Raw) -> Listed:
    return Listed(metadata=_decode(bytes(raw), _Headed).metadata, raw=raw.copy())


def _decode(data: bytes, shape: type[ShapeT]) -> ShapeT:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ListFailed("the API server answered in an unknown shape") from error


def _unreachable(error: httpx.HTTPError) -> ListFailed:
    return ListFailed(f"the API server can't be reached: {str(error) or type(error).__name__}")


def _refused(status: int, body: bytes) -> ListFailed:
    try:
        said = msgspec.json.decode(body, type=_Status).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = ""
    return ListFailed(f"the API server answered {status}: {said[:300]}".rstrip(": "), status=status)
