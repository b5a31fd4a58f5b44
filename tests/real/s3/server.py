"""A real S3 server for tests and the demo, on 127.0.0.1, with its data in a folder of its own.

    with S3Server() as server:
        ...                      # server.endpoint, server.access_key, server.secret_key

    python tests/real/s3/server.py --port 9000

It is fetched when it isn't there yet (install.py), starts in about half a second, and several run
side by side. The S3 code is MinIO's; it has no versioning and no lifecycle rules.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

if __package__:
    from tests.real.vllm.ports import HOST, HeldPort
    from tests.real.vllm.process_group import ProcessGroup

    from .install import install
else:  # run as a command
    sys.path[:0] = [str(Path(__file__).resolve().parents[3])]
    from tests.real.s3.install import install
    from tests.real.vllm.ports import HOST, HeldPort
    from tests.real.vllm.process_group import ProcessGroup

READY_SECONDS = 30.0
ACCESS_KEY = "understudy-tests"
SECRET_KEY = "a-secret-that-no-message-shows"

GATEWAY_FLAGS = (
    *("--multi-buckets", "--keep-etag", "--object-meta", "--object-tag", "--no-banner"),
    *("--backup-meta", "0", "--no-usage-report", "--metrics", f"{HOST}:0"),
)


class S3Error(Exception):
    """A server that did not start, with the end of its log."""


class S3Server:
    """One server. Its data goes when it is left (`folder` keeps it elsewhere)."""

    def __init__(
        self,
        port: int | HeldPort | None = None,
        folder: Path | None = None,
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
    ) -> None:
        self._held = HeldPort.any() if port is None else port
        self.port = self._held.port if isinstance(self._held, HeldPort) else self._held
        self.endpoint = f"{HOST}:{self.port}"
        self.access_key = access_key
        self.secret_key = secret_key
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="understudy-s3-"))
        self._group: ProcessGroup | None = None

    def settings(self, **others: Any) -> dict[str, Any]:
        """What the section `objects` of a configuration says to use this server."""
        return {
            "kind": "minio",
            "endpoint": self.endpoint,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "secure": False,
            **others,
        }

    def start(self) -> Self:
        """Start it and wait until it answers; after `kill` or `stop`, on the same data again."""
        program = str(install())
        database = f"sqlite3://{self.folder}/meta.db"
        if not (self.folder / "meta.db").exists():
            self._format(program, database)
        self._group = ProcessGroup(
            [
                *(program, "--no-agent", "gateway", *GATEWAY_FLAGS),
                *("--log", str(self.folder / "gateway.log")),
                *("--cache-dir", str(self.folder / "cache"), database, self.endpoint),
            ],
            self.folder / "output.log",
            self.folder,
            {
                **os.environ,
                "MINIO_ROOT_USER": self.access_key,
                "MINIO_ROOT_PASSWORD": self.secret_key,
            },
        ).start()
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                tail = self._group.log_tail()
                self.stop()
                raise S3Error(f"the S3 server did not start. {tail}")
            time.sleep(0.05)
        return self

    def _format(self, program: str, database: str) -> None:
        blobs = self.folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                *(program, "format", "--storage", "file", "--bucket", f"{blobs}/"),
                *("--trash-days", "0", "--no-update", database, "tests"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise S3Error(f"no volume for the S3 server:\n{done.stderr}")

    def ready(self) -> bool:
        """Whether it takes requests: it lives before it has what it needs, and says 503 then."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=2)) as caller:
            try:
                caller.request("GET", "/")
                return caller.getresponse().status == http.HTTPStatus.FORBIDDEN
            except (OSError, http.client.HTTPException):
                return False

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._group is not None and self._group.running

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._group is None:
            raise RuntimeError("it was not started")
        return self._group.pid

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        if self._group is not None:
            self._group.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        if self._group is not None:
            self._group.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it the hard way. `start` brings it back on the same port and data."""
        if self._group is not None:
            self._group.kill()

    def stop(self) -> None:
        """End it. `start` brings it back on the same port and data."""
        if self._group is not None:
            self._group.stop()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._remove()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()  # its data goes with it, so there is nothing to end in order
        self._remove()

    def _remove(self) -> None:
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run one server until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run one real S3 server on 127.0.0.1.")
    parser.add_argument("--port", type=int, help="default: any free port")
    parser.add_argument("--folder", type=Path, help="keep the data here; default: it goes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with S3Server(arguments.port, arguments.folder) as server:
            print(f"S3 at http://{server.endpoint}, {server.access_key} / {server.secret_key}")
            print("Ctrl-C ends it", flush=True)
            while server.running:
                time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    print("The server ended by itself.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
