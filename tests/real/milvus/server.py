"""A real Milvus server for tests, on 127.0.0.1, unpacked by install.py.

    with MilvusServer() as server:
        ...                      # server.uri

    python tests/real/milvus/server.py --port 19530 [--set KEY=VALUE]...

Each one has a data folder of its own: a start on old data takes 35 seconds, a fresh one 3.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

if __package__:
    from .install import install
    from .launch import NOT_ALLOWED
else:  # run as a command
    from install import install
    from launch import NOT_ALLOWED

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
READY_SECONDS = 90.0
STOP_SECONDS = 15.0


class MilvusError(Exception):
    """A server that did not start, with the end of its log."""


class NamespacesNotAllowedError(MilvusError):
    """Here no process may have a network of its own, so Milvus can't be kept to the loopback."""


class MilvusServer:
    """One Milvus standalone. ``settings`` are lines ``key=value`` for its configuration."""

    def __init__(
        self, port: int | None = None, settings: Sequence[str] = (), folder: Path | None = None
    ) -> None:
        self.port = port or free_port()
        self.health_port = free_port()
        self.uri = f"http://{HOST}:{self.port}"
        self.settings = tuple(settings)
        self._own = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="understudy-milvus-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, on what its folder holds, and wait until it is healthy."""
        install()
        log = self.folder / "launch.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, str(HERE / "launch.py"), str(self.folder)),
                    *("--port", str(self.port), "--health-port", str(self.health_port)),
                    *("--parent", str(os.getpid())),
                    *(f"--set={pair}" for pair in self.settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while b"ready" not in log.read_bytes().split():
            if self._process.poll() == NOT_ALLOWED:
                raise NamespacesNotAllowedError(log.read_text().strip())
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise MilvusError(f"Milvus did not start. {self.log_tail()}")
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """End it the hard way, launcher and server. `start` goes on with the same data."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it; its data stay if the folder was given."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> str:
        """The ends of the two logs."""
        parts = []
        for path in (self.folder / "launch.log", self.folder / "milvus.log"):
            text = path.read_text(errors="replace") if path.exists() else ""
            parts += [f"The end of {path}:", *text.splitlines()[-lines:]]
        return "\n".join(parts)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Run one server until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run a real Milvus on 127.0.0.1.")
    parser.add_argument("--port", type=int, help="default: any free port")
    parser.add_argument("--folder", type=Path, help="default: one that goes when this ends")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of milvus.yaml")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        with MilvusServer(asked.port, asked.set, asked.folder) as server:
            print(f"{server.uri} after {time.monotonic() - started:.1f} s", flush=True)
            while server.running:
                time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except MilvusError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
