"""Milvus Lite as a server: ``python -m adapters.milvus.lite_server FOLDER ADDRESS``.

A process of its own because Lite's searches are Python code that would hold the gateway's
interpreter. It has one worker thread: Lite loses writes that run at the same time, and may miss
rows that are searched while they are flushed. Index builds and compaction run beside it.

The folder is Lite's own, the address ``unix:FILE`` or ``127.0.0.1:PORT``. The word ``ready`` on
stdout says that it answers. It ends on SIGTERM, and when its standard input is closed: that is
how it dies with the process that owns it, however that one ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLOSE_SECONDS = 4.0
"""For writing what is in memory to segments. What doesn't fit is in the write-ahead log anyway."""

_OPEN_SECONDS = 15.0
_MESSAGE_BYTES = 256 * 1024 * 1024
_MAX_WAITING = 512


def serve(folder: Path, address: str) -> None:
    """Open the database and answer until told to end. Never returns."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, which then ends this
    threading.Thread(target=_end_with_owner, daemon=True).start()

    import grpc
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from pymilvus.grpc_gen import milvus_pb2_grpc

    database = _open(folder)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=1),
        maximum_concurrent_rpcs=_MAX_WAITING,
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    if address.startswith("unix:"):
        # Whoever left it is gone: this process holds the database's lock.
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)
    if not server.add_insecure_port(address):
        raise SystemExit(f"Milvus Lite can't listen at {address}")
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ended.wait()
    server.stop(grace=1.0).wait(2.0)
    closing = threading.Thread(target=database.close, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
    os._exit(0)  # a build that runs on in a thread must not keep the process


def _open(folder: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202  (Lite has no types)
    """The database; a process that was killed a moment ago may still hold its lock."""
    from milvus_lite.db import MilvusLite
    from milvus_lite.exceptions import DataDirLockedError

    deadline = time.monotonic() + _OPEN_SECONDS
    while True:
        try:
            return MilvusLite(str(folder))
        except DataDirLockedError:
            if time.monotonic() > deadline:
                raise SystemExit("another process has this Milvus Lite open") from None
            time.sleep(0.05)


def _end_with_owner() -> None:
    """Wait for the end of standard input. Nothing acknowledged is lost by an end at any moment."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
