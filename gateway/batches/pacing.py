"""When the next request of a batch may begin: behind callers, and no faster than servers bear.

Callers come first. A request of a batch begins only while few requests of callers are in flight at
the servers of its model. How many those are is known without counting: the connections in use, less
the batches' own. While callers come and go, a batch uses half of what it might, so that the next
one finds a free place.

Only this process's callers are seen, so a second measure works everywhere. Like TCP, a batch begins
with one request at once and adds one as long as answers come no slower for it; when they take more
than half as long again as they did at best, or a server refuses, it halves.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

from gateway.ports import ModelServer
from gateway.settings import BatchSettings

__all__ = ["Pacer", "Traffic", "Turn"]

_FIRST_LOOK_SECONDS = 0.02
_LAST_LOOK_SECONDS = 0.25
_NEW = 0.1
"""How much of a new time goes into the average of late."""

_FORGOTTEN = 1.002
"""With every answer the best average fades, since what servers can do changes."""

_TOO_SLOW = 1.6
_REMEMBERED_SECONDS = 1.0
"""How long room is left after a caller was seen."""

_NOTHING = 1e-6
_LONGEST_REFUSAL_SECONDS = 30.0


class Traffic:
    """The requests of batches at model servers, for all batches of a process."""

    def __init__(self) -> None:
        self._own: defaultdict[ModelServer, float] = defaultdict(float)

    def callers(self, servers: Collection[ModelServer]) -> int:
        """How many requests of callers are in flight at these servers."""
        busy = sum(server.busy_connections for server in servers)
        return max(0, round(busy - sum(self._own.get(server, 0.0) for server in servers)))

    def count(self, servers: Collection[ModelServer], change: int) -> None:
        """A request of a batch begins (+1) or ends (-1) at one of these, nobody knows which."""
        for server in servers:
            self._own[server] += change / len(servers)
            if abs(self._own[server]) < _NOTHING:
                del self._own[server]


class Turn:
    """One request of a batch."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._started = time.monotonic()

    def answered(self, tokens: int) -> None:
        """It was, with so many tokens; a long answer may take long."""
        self._pacer.note((time.monotonic() - self._started) / max(tokens, 1))

    def refused(self, retry_after: int | None) -> None:
        """The server has too much to do."""
        self._pacer.refused(retry_after)


class Pacer:
    """Of one batch."""

    def __init__(self, settings: BatchSettings, traffic: Traffic) -> None:
        self._traffic = traffic
        self._most = settings.concurrency
        self._yield_above = settings.yield_above
        self._patience = settings.patience_seconds
        self._limit = 1.0
        self._in_flight = 0
        self._freed = asyncio.Event()
        self._last_begin = time.monotonic()
        self._not_before = 0.0
        self._caller_seen = -_REMEMBERED_SECONDS
        self._best = math.inf
        self._lately: float | None = None
        self._settling = 0
        """Requests still in flight since the last halving, whose times say nothing of it."""

    @property
    def limit(self) -> int:
        """How many requests may be in flight where no caller is."""
        return int(self._limit)

    @asynccontextmanager
    async def turn(
        self,
        servers: Collection[ModelServer],
        permit: AbstractAsyncContextManager[None] | None = None,
    ) -> AsyncIterator[Turn]:
        """Wait until a request to one of these servers may begin; it lasts as long as the block.

        ``permit`` is what it needs besides, and is asked for last: what waits here holds nothing
        that callers could use.
        """
        await self._admission(servers)
        self._in_flight += 1
        try:
            async with permit or nullcontext():
                self._last_begin = time.monotonic()
                self._traffic.count(servers, 1)
                try:
                    yield Turn(self)
                finally:
                    self._traffic.count(servers, -1)
        finally:
            self._in_flight -= 1
            self._settling = max(0, self._settling - 1)
            self._freed.set()

    async def _admission(self, servers: Collection[ModelServer]) -> None:
        look = _FIRST_LOOK_SECONDS
        while True:
            now = time.monotonic()
            callers = self._traffic.callers(servers)
            if callers:
                self._caller_seen = now
            room_left = now - self._caller_seen < _REMEMBERED_SECONDS
            if now < self._not_before:
                await asyncio.sleep(self._not_before - now)
            elif self._in_flight >= (max(1, self.limit // 2) if room_left else self.limit):
                await self._one_less()
            elif callers > self._yield_above and not self._impatient():
                await asyncio.sleep(look)
                look = min(2 * look, _LAST_LOOK_SECONDS)
            else:
                return

    async def _one_less(self) -> None:
        """Wait until a request has ended, or a moment: the room may have grown meanwhile."""
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                await self._freed.wait()

    def _impatient(self) -> bool:
        waited = time.monotonic() - self._last_begin
        return self._in_flight == 0 and waited >= self._patience

    def note(self, seconds: float) -> None:
        """An answer took so long. One more may be in flight once all have come in time."""
        if self._settling:
            return
        lately = seconds if self._lately is None else self._lately
        self._lately = lately + _NEW * (seconds - lately)
        self._best = min(self._best * _FORGOTTEN, self._lately)
        if self._lately > _TOO_SLOW * self._best:
            self._halve()
            self._lately = self._best
        elif self._in_flight >= self.limit:  # one that isn't used up says nothing
            self._limit = min(self._limit + 1 / self.limit, self._most)
            self._freed.set()

    def refused(self, retry_after: int | None) -> None:
        """Nobody begins until the server may have got over it."""
        if not self._settling:
            self._halve()
        pause = min(retry_after or 1, _LONGEST_REFUSAL_SECONDS)
        self._not_before = max(self._not_before, time.monotonic() + pause)

    def _halve(self) -> None:
        self._limit = max(1.0, self._limit / 2)
        self._settling = self._in_flight
