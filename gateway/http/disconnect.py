"""Noticing that the caller has left.

ASGI tells of a disconnect only to who asks, so every handler that waits for another server must ask
while it waits; otherwise that server works on for nobody.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gateway.errors import ClientDisconnected

if TYPE_CHECKING:
    from gateway.http.asgi import Receive

PATIENCE_SECONDS = 0.02
"""Calls shorter than this never pay for a watching task; a departure in that time is noticed when
it is over, which is still well within 100 ms."""


class Departure:
    """Cancels what happens inside the ``with`` block when the caller leaves.

    Use after the body has been read::

        with Departure(receive):
            answer = await server.send(…)

    Raises ``ClientDisconnected`` in place of the cancellation; a cancellation from elsewhere, such
    as a shutdown, passes through.
    """

    __slots__ = ("_left", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def left(self) -> bool:
        """Whether the caller has left."""
        return self._left

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._left and isinstance(error, asyncio.CancelledError):
            assert self._task is not None  # set on entry
            self._task.uncancel()
            raise ClientDisconnected("The client left.") from None

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()
