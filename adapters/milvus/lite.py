"""Milvus Lite in a process of its own, shared by all gateways on one data folder."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from gateway.errors import UpstreamError

__all__ = ["LiteOwner", "is_taken"]

_LOG = logging.getLogger(__name__)

_SERVER = Path(__file__).with_name("lite_server.py")
_SOCKET = "lite.sock"
_LONGEST_SOCKET_PATH = 100
"""The system's limit is 108 bytes, on some 104."""

_LOCK_SECONDS = 0.25
"""How soon another process notices that the owner is gone."""

_WATCH_SECONDS = 0.05
_STOP_SECONDS = 8.0
_STEADY_SECONDS = 10.0
_LONGEST_PAUSE = 5.0


class LiteOwner:
    """One of the processes that share ``folder``: whoever holds its lock runs Lite's process.

    ::

        folder/               for this user only
            owner.lock        held by the process that runs the server
            lite.sock         where the server listens
            data/             Lite's own

    A thread keeps the server running while this process has the lock and asks for the lock while
    it doesn't. The server ends when its owner does, in any way: its standard input is a pipe
    from there. Nothing is acknowledged before it is in the write-ahead log, so an end at any
    moment loses nothing. Methods block; call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._state = threading.Lock()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._directory: int | None = None

    @property
    def address(self) -> str:
        """For gRPC, after ``start``."""
        path = str(self.folder / _SOCKET)
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            path = f"/proc/self/fd/{self._directory}/{_SOCKET}"
        return f"unix:{path}"

    def start(self) -> None:
        """Begin to keep the server running; returns before it answers. Again: nothing."""
        with self._state:
            if self._keeper is not None or self._closing.is_set():
                return
            if importlib.util.find_spec("milvus_lite") is None:
                raise UpstreamError(
                    "Milvus Lite is not installed, and vectors.uri names no server."
                )
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.folder.chmod(0o700)
                self._directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                raise UpstreamError(
                    f"The folder of Milvus Lite can't be used: {error.strerror}."
                ) from error
            self._keeper = threading.Thread(target=self._keep, name="milvus-lite", daemon=True)
            self._keeper.start()

    def close(self) -> None:
        """End the server if it is this process's; takes a few seconds at most."""
        self._closing.set()
        with self._state:
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.join(_STOP_SECONDS + 2.0)
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def _keep(self) -> None:
        while not self._closing.is_set():
            try:
                with (self.folder / "owner.lock").open("a") as lock:
                    while not self._closing.is_set():
                        if _taken(lock):
                            self._own()
                        else:
                            self._closing.wait(_LOCK_SECONDS)
            except OSError:
                _LOG.exception("Milvus Lite can't be started")
                self._closing.wait(_LONGEST_PAUSE)

    def _own(self) -> None:
        """Run the server, again whenever it ends, until this process closes."""
        pause = _WATCH_SECONDS
        while not self._closing.is_set():
            began = time.monotonic()
            server = self._server = self._spawn()
            while server.poll() is None and not self._closing.wait(_WATCH_SECONDS):
                pass
            if self._closing.is_set():
                _end(server)
                return
            _LOG.warning("Milvus Lite ended with status %d and is started again", server.returncode)
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _WATCH_SECONDS
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # By its file, so that it needs no package beside Lite; in the folder, so that the
        # socket's name is short. Closing its standard input, as the end of this process does,
        # ends it.
        return subprocess.Popen(  # noqa: S603  (nothing of a caller's is in it)
            [sys.executable, "-P", str(_SERVER), "data", f"unix:{_SOCKET}"],
            cwd=self.folder,
            umask=0o077,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE")},
        )


def is_taken(folder: Path) -> bool:
    """Whether a process that is no gateway has the database of this folder open.

    A gateway holds the lock of ``owner.lock`` as long as its Lite holds the database's own.
    """
    return _is_locked(folder / "data" / "LOCK") and not _is_locked(folder / "owner.lock")


def _is_locked(file: Path) -> bool:
    try:
        with file.open("r") as lock:  # released with the file
            return not _taken(lock)
    except OSError:
        return False


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdin is not None:
        server.stdin.close()
