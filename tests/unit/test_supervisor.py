"""What becomes of worker processes that don't do as they are told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time

from gateway import supervisor
from gateway.supervisor import Heartbeat, Supervisor
from tests.support.processes import alive, workers_of


def deaf(_: socket.socket, heartbeat: Heartbeat) -> None:
    """A worker that hangs from the moment it is to leave."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: told.append(number))
    while True:
        if not told:
            heartbeat.beat()
        time.sleep(0.05)


def supervise() -> None:
    supervisor.SILENT_SECONDS = 2.0
    listener = socket.create_server(("127.0.0.1", 0))
    raise SystemExit(Supervisor(deaf, listener, 1).run())


def the_worker(pid: int, *, but: int = 0) -> int:
    deadline = time.monotonic() + 60
    while not (found := workers_of(pid) - {but}):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found.pop()


def test_a_worker_that_hangs_while_it_leaves_is_killed():
    """After it was replaced, and at the end of all; that end is none in order."""
    process = multiprocessing.get_context("spawn").Process(target=supervise)
    process.start()
    assert process.pid is not None
    try:
        old = the_worker(process.pid)
        time.sleep(1)  # it listens
        os.kill(process.pid, signal.SIGHUP)
        new = the_worker(process.pid, but=old)
        deadline = time.monotonic() + 60
        while alive(old):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert alive(new)
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        assert process.exitcode == 1
        assert not alive(new)
    finally:
        process.kill()
        process.join()
