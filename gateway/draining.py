"""The HTTP server of a process, and how it ends without losing a request.

::

    SIGTERM ──> unready at once; answers close their connections; jobs go to other replicas
       │        `drain_seconds`: new requests are still served, until nobody sends any more
       ├──────> no new connections; those on which nothing is asked are closed
       │        `shutdown_grace_seconds`: what runs goes on to its end
       ├──────> what still runs is cut, and says so
       └──────> everything is closed; exit status 0

SIGINT is a person at a terminal, whom nothing stands before: it leaves out the first pause. A
second signal cuts at once what runs, and a third ends the process on the spot.

SIGUSR1 tells a worker process that another one has taken its place. It drains as after SIGTERM, but
for what it says about itself: the gateway as a whole stays ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from gateway.settings import ServerSettings

__all__ = ["CLOSE_SECONDS", "DrainingServer", "Ending"]

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0
"""For closing what a process holds, after its requests; then it ends whatever still hangs."""

_TICK_SECONDS = 0.05
_TOLD_SECONDS = 2.0
_LINGER_SECONDS = 0.5
"""How long a connection that was not announced to close may be idle first: its client may be
sending the next request on it just then, which would be lost."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSE = (b"connection", b"close")


def _nothing() -> None:
    """The sign of life of a process that nobody watches."""


class Ending:
    """The signals that end a process. ``begun`` is told at the first one, in the signal handler,
    unless that one means that others go on.

    Of a worker process SIGINT is ignored: its supervisor has had it too. ``replaceable`` is one
    that has a supervisor.
    """

    def __init__(
        self,
        begun: Callable[[], None],
        *,
        tick: Callable[[], None] = _nothing,
        replaceable: bool = False,
    ) -> None:
        self.asked = False
        self._told = False
        self.hurried = False
        """A person ended it, so that there is nobody to be waited for."""
        self.cut = False
        self._begun = begun
        self._signals = (*_SIGNALS, signal.SIGUSR1) if replaceable else _SIGNALS
        self.tick = tick
        """Called all the while, as a sign of life."""

    @contextlib.contextmanager
    def listened_for(self) -> Iterator[None]:
        """While this block runs. Outside the main thread nothing is listened for."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [one for one in self._signals if signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin(self, *, hurried: bool = False) -> None:
        """As the first signal does."""
        if not self._told:
            self.asked = self._told = True
            self.hurried = hurried
            self._begun()

    def limit(self, seconds: float) -> None:
        """From now on so many seconds are left: a process that hangs while it ends is ended."""
        timer = threading.Timer(seconds, _give_up)
        timer.daemon = True
        timer.start()

    async def wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Wait until that is so; false where the time was over, or a second signal came, first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not until():
            if self.cut or loop.time() >= end:
                return False
            self.tick()
            await asyncio.sleep(_TICK_SECONDS)
        return True

    def _take(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.asked = True
            return
        if self.cut:
            os._exit(1)
        self.cut = self._told
        self.begin(hurried=number == signal.SIGINT)


class DrainingServer(uvicorn.Server):
    """``retire`` is awaited when the draining begins: it hands over what others can do."""

    def __init__(
        self,
        config: uvicorn.Config,
        settings: ServerSettings,
        *,
        ending: Ending,
        retire: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._ending = ending
        self._retire = retire
        self._idle: dict[Any, float] = {}  # connections, and since when

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, doesn't end the process by the signal after all went well."""
        with self._ending.listened_for():
            yield

    async def on_tick(self, counter: int) -> bool:
        self._ending.tick()
        held = self.server_state.default_headers
        over = await super().on_tick(counter)
        # It makes a new list every second; requests that run hold the one that they began with.
        held[:] = self.server_state.default_headers
        self.server_state.default_headers = held
        return over or self._ending.asked

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        settings, ending = self._settings, self._ending
        if not ending.asked:
            ending.begin()
        pause = 0 if ending.hurried else settings.drain_seconds
        ending.limit(pause + settings.shutdown_grace_seconds + CLOSE_SECONDS)
        retiring = asyncio.create_task(self._retired(), name="hand over")
        logger.info("Draining: new requests are served for another %g s", pause)
        # In place: requests that run hold this list, and add it to the answers that they begin.
        self.server_state.default_headers.append(_CLOSE)
        await ending.wait(pause, self._never)
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        if not await ending.wait(settings.shutdown_grace_seconds, self._is_idle):
            await self._cut()
        await retiring
        await self.lifespan.shutdown()

    def _never(self) -> bool:
        self._look_for_idle()
        return False

    def _is_idle(self) -> bool:
        for connection in self._look_for_idle():
            connection.shutdown()
        state = self.server_state
        return not state.connections and not state.tasks

    def _look_for_idle(self) -> list[Any]:
        """The connections on which nothing has been asked for long enough."""
        now = time.monotonic()
        connections: set[Any] = self.server_state.connections  # of JoiningProtocol
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        self._idle = {one: self._idle.get(one, now) for one in idle}
        return [one for one, since in self._idle.items() if now - since >= _LINGER_SECONDS]

    async def _cut(self) -> None:
        running: list[asyncio.Task[Any]] = list(self.server_state.tasks)
        logger.error("The time for requests to end is over: %d are cut", len(running))
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_TOLD_SECONDS)

    async def _retired(self) -> None:
        try:
            await self._retire()
        except Exception:
            logger.exception("Handing over failed; leases end by themselves")


def _give_up() -> None:
    logger.critical("Ending hangs; the process ends now")
    os._exit(1)
