"""Ports that two demos or test runs at once don't take from each other.

vLLM binds its port seconds after it was started, so "nobody listens there" is not enough to choose
one. A lock file per port says that it was chosen; the system drops the lock with its process.
"""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterable
from typing import Self

if __package__:
    from .install import home
else:  # run as a command
    from install import home

HOST = "127.0.0.1"
ATTEMPTS = 200


class PortTakenError(Exception):
    """Somebody listens on the port, or has chosen it."""


class HeldPort:
    """A port that was chosen, until `release` or until this object is gone."""

    def __init__(self, port: int) -> None:
        if not bindable(port):
            raise PortTakenError(f"port {port} is taken")
        folder = home() / "ports"
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self._lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise PortTakenError(f"port {port} is chosen already") from error

    @classmethod
    def any(cls) -> Self:
        """Any free port."""
        return cls._first(any_port() for _ in range(ATTEMPTS))

    @classmethod
    def at_or_after(cls, first: int) -> Self:
        """The lowest free port from `first` on."""
        return cls._first(range(first, first + ATTEMPTS))

    @classmethod
    def _first(cls, ports: Iterable[int]) -> Self:
        for port in ports:
            try:
                return cls(port)
            except PortTakenError:
                continue
        raise PortTakenError(f"no free port in {ATTEMPTS} attempts")

    def release(self) -> None:
        """Leave the port to others."""
        self._lock.close()


def any_port() -> int:
    """A port that the system thinks free."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def bindable(port: int) -> bool:
    """Whether a server could bind the port now; connections that linger don't count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
