"""Several worker processes on one socket: kept alive, and ended together.

::

    SIGTERM, SIGINT   the workers drain; a second one cuts what they still do
    SIGHUP            new workers take the places of the old ones, which drain, one by one
    a worker dies     another one takes its place
    a worker hangs    it is killed, and another one takes its place
    this one dies     the workers see it and drain
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["Heartbeat", "Supervisor", "WorkerMain"]

logger = logging.getLogger(__name__)

SILENT_SECONDS = 60.0
"""A worker whose event loop has not turned for so long hangs."""

_BEAT_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_START_SECONDS = 120.0
_LOOK_SECONDS = 1.0

_IN_ORDER = (0, -signal.SIGTERM, -signal.SIGUSR1)  # the latter ones before it listens for them
_spawn = multiprocessing.get_context("spawn")


class Heartbeat:
    """A worker's side: tells the supervisor that it has started and that its loop turns."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._beaten = 0.0
        self.alone = False
        """Whether the supervisor is gone."""

    def beat(self) -> None:
        """Say so, once a second at most."""
        now = time.monotonic()
        if now - self._beaten < _BEAT_SECONDS:
            return
        self._beaten = now
        try:
            self._pipe.send_bytes(b".")
        except OSError:
            self.alone = True


WorkerMain = Callable[[socket.socket, Heartbeat], None]


class _Worker:
    """The supervisor's side of one process."""

    def __init__(self, main: WorkerMain, listener: socket.socket) -> None:
        self.pipe, theirs = _spawn.Pipe(duplex=False)
        self.process: SpawnProcess = _spawn.Process(
            target=_begin, args=(main, listener, theirs), name="worker"
        )
        self.process.start()
        theirs.close()  # so that its end is seen here
        self.begun = self.heard = time.monotonic()
        self.started = False

    def listen(self) -> None:
        """Take in what it has said."""
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                self.pipe.recv_bytes()
                self.heard = time.monotonic()
                self.started = True

    @property
    def hangs(self) -> bool:
        limit = SILENT_SECONDS if self.started else _START_SECONDS
        return time.monotonic() - self.heard > limit

    def terminate(self) -> None:
        """SIGTERM, for SIGINT too: a terminal sends that one to the workers as well."""
        if self.process.is_alive():
            self.process.terminate()

    def replace(self) -> None:
        """Have it leave, though the gateway goes on: see `gateway.draining`."""
        if self.process.is_alive():
            os.kill(self.process.ident or 0, signal.SIGUSR1)

    def reap(self) -> int | None:
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


class Supervisor:
    """``main`` is what a worker runs, in a process of its own; it must be importable by name.

    ``listener`` is closed here when the ending begins, so that it closes with the last worker.
    """

    def __init__(self, main: WorkerMain, listener: socket.socket, count: int) -> None:
        self._main = main
        self._listener = listener
        self._count = count
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []
        self._signals: list[signal.Signals] = []
        self._ending = False
        self._pause = 0.0
        self._next_start = 0.0
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)

    def run(self) -> int:
        """Until all workers have ended; the exit status.

        That is a worker's own where one fails before any has started: others would do the same.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        started = False
        status = 0
        while True:
            self._handle_signals()
            if not self._ending:
                self._fill()
            if self._ending and not self._workers and not self._leaving:
                return status
            self._listen()
            started = started or any(one.started for one in self._workers)
            for worker in self._ended():
                code = worker.reap()
                expected = worker in self._leaving
                self._drop(worker)
                if self._ending:
                    status = status or int(code not in _IN_ORDER)
                elif expected:
                    logger.log(
                        logging.INFO if code in _IN_ORDER else logging.WARNING,
                        "Worker %s has left: %s",
                        worker.process.pid,
                        code,
                    )
                elif not started:
                    logger.error("A worker could not start; its exit status is %s", code)
                    status = code or 1
                    self._end()
                else:
                    logger.warning("Worker %s died: %s", worker.process.pid, code)
                    self._wait_longer(worker)

    def _take(self, number: int, _: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number is not signal.SIGHUP:
                logger.info("%s: the workers end", number.name)
                self._end()
            elif not self._ending:
                self._replace_all()

    def _end(self) -> None:
        self._ending = True
        self._listener.close()
        for worker in [*self._workers, *self._leaving]:
            worker.terminate()

    def _replace_all(self) -> None:
        """Have new workers take over; an old one leaves when its successor has started."""
        logger.info("SIGHUP: new workers take the places of the old ones")
        for old in [*self._workers]:
            new = _Worker(self._main, self._listener)
            while not (new.started or new.hangs or self._signals) and new.process.is_alive():
                wait([new.pipe, new.process.sentinel, self._wake], timeout=_LOOK_SECONDS)
                self._drain_wakeups()
                new.listen()
            if not new.started:
                logger.error("A new worker has not started: the old ones stay")
                new.process.kill()
                new.reap()
                return
            self._workers[self._workers.index(old)] = new
            self._leaving.append(old)
            old.replace()

    def _fill(self) -> None:
        while len(self._workers) < self._count and time.monotonic() >= self._next_start:
            self._workers.append(_Worker(self._main, self._listener))

    def _wait_longer(self, worker: _Worker) -> None:
        """One that ran is followed at once; those that die at the start are followed slower."""
        steady = worker.started and time.monotonic() - worker.begun > _LONGEST_PAUSE_SECONDS
        self._pause = (
            0.0
            if steady
            else min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        )
        self._next_start = time.monotonic() + self._pause

    def _listen(self) -> None:
        """Wait for word from a worker, the end of one, or a signal."""
        everyone = [*self._workers, *self._leaving]
        ends = [one.process.sentinel for one in everyone]
        # A worker that ends says nothing more, and its pipe would never be waited for.
        words = [] if self._ending else [one.pipe for one in self._workers]
        wait([*ends, *words, self._wake], timeout=_LOOK_SECONDS)
        self._drain_wakeups()
        for one in everyone:
            one.listen()

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(64):
                pass

    def _ended(self) -> list[_Worker]:
        everyone = [*self._workers, *self._leaving]
        for one in everyone:
            if one.hangs and one.process.is_alive():
                logger.error("Worker %s hangs and is killed", one.process.pid)
                one.process.kill()
                one.process.join()
        return [one for one in everyone if not one.process.is_alive()]

    def _drop(self, worker: _Worker) -> None:
        for group in (self._workers, self._leaving):
            if worker in group:
                group.remove(worker)


def _begin(main: WorkerMain, listener: socket.socket, pipe: Connection) -> None:
    """What a worker process begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # see `_Worker.terminate`
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens; a terminal sends it too
    main(listener, Heartbeat(pipe))
