"""A worker in a process of its own, to be killed and frozen.

    python -m tests.support.queue_worker DATABASE_URL LEASE_SECONDS LOG

It does jobs of kind `sleep` (`{"name": …, "seconds": …}`) and writes a line to LOG when one starts
and when it ends: `start NAME ATTEMPT`, `end NAME ATTEMPT`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.procrastinate import ProcrastinateQueue
from adapters.sqlite import SqliteQueue
from gateway.database.engine import Database
from gateway.ports import Job, JobQueue
from tests.support.databases import open_database

ROOT = Path(__file__).resolve().parents[2]


def queue_on(database: Database, lease_seconds: float) -> JobQueue:
    """The queue that belongs to this kind of database."""
    kind = SqliteQueue if database.is_sqlite else ProcrastinateQueue
    return kind(database, lease_seconds=lease_seconds)


class QueueWorker:
    """Such a process, while the block runs."""

    def __init__(self, url: str, lease_seconds: float, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.queue_worker", url, str(lease_seconds), str(log)],
            cwd=ROOT,
        )

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


async def main(url: str, lease_seconds: float, log: Path) -> None:
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    async def sleep(job: Job) -> None:
        name = job.payload["name"]
        os.write(file, f"start {name} {job.attempt}\n".encode())
        await asyncio.sleep(job.payload["seconds"])
        os.write(file, f"end {name} {job.attempt}\n".encode())

    queue = queue_on(open_database(url), lease_seconds)
    await queue.start()
    await queue.work({"sleep": sleep}, concurrency=4)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
