"""Run Milvus standalone so that it is reached on 127.0.0.1 only: a process of its own.

Milvus 2.3 listens on every interface, whatever its configuration says. So it is started in a
network namespace that has nothing but a loopback; two loopback listeners that were opened before
are forwarded into it. Needs root, or user namespaces; ends with status 77 where neither is
allowed. Nothing but the standard library, and the wheel's own template of a configuration.

    python launch.py FOLDER --port 19530 --health-port 9091 --parent PID [--set KEY=VALUE]...
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from install import binaries, wheel

PORT, HEALTH_PORT = 19530, 9091  # inside the namespace
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
PR_SET_PDEATHSIG = 1
NOT_ALLOWED = 77
BLOCK = 1 << 18

LIBC = ctypes.CDLL(None, use_errno=True)


def listener(port: int) -> socket.socket:
    """A loopback listener in the namespace that this process was started in."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("127.0.0.1", port))
    opened.listen(512)
    opened.setblocking(False)
    return opened


def enter_own_network() -> None:
    """From now on this process and its children see a loopback only."""
    if LIBC.unshare(CLONE_NEWNET) != 0 and LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        print("network namespaces are not allowed:", os.strerror(ctypes.get_errno()), flush=True)
        raise SystemExit(NOT_ALLOWED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(control, SIOCSIFFLAGS, flags)


def configure(folder: Path, settings: list[str]) -> None:
    """Write `configs/milvus.yaml` by the wheel's own template."""
    sys.path.insert(0, str(wheel()))
    import milvus

    config = milvus.MilvusServerConfig(data_dir=str(folder))
    config.configs["proxy_port"] = PORT
    for pair in ["log.level=warn", "etcd_log_level=warn", *settings]:
        key, _, value = pair.partition("=")
        config.set(key, value)
    config.resolve()


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The server itself; it dies with this process."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env |= {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(HEALTH_PORT),
        "MILVUS_RUN_DIR": str(folder / "run"),
        "LD_LIBRARY_PATH": str(binaries()),
    }
    with (folder / "milvus.log").open("ab") as log:
        return subprocess.Popen(
            [str(binaries() / "milvus"), "run", "standalone"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509  (no threads yet)
        )


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both directions of one connection."""
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=BLOCK)
    except OSError:
        writer.close()
        return
    for end in (writer, far_writer):
        end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    writer.close()


def healthy() -> bool:
    """Whether the server says that all its parts are up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/healthz", timeout=2) as answer:
            return b"OK" in answer.read()
    except OSError:
        return False


async def run(
    server: subprocess.Popen[bytes], listeners: list[tuple[socket.socket, int]], parent: int
) -> None:
    """Forward until a signal comes, the server ends or the parent is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for opened, port in listeners:
        await asyncio.start_server(
            lambda reader, writer, port=port: forward(reader, writer, port),
            sock=opened,
            limit=BLOCK,
        )
    ready = False
    while not stop.is_set() and server.poll() is None and os.getppid() == parent:
        if not ready and (ready := await asyncio.to_thread(healthy)):
            print("ready", flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5 if ready else 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--health-port", type=int, default=HEALTH_PORT)
    parser.add_argument("--parent", type=int, required=True, help="end when this process does")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of milvus.yaml")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    listeners = [(listener(asked.port), PORT), (listener(asked.health_port), HEALTH_PORT)]
    enter_own_network()
    configure(folder, asked.set)
    server = start(folder)
    try:
        asyncio.run(run(server, listeners, asked.parent))
    finally:
        # Its own way to end is an abort, and it keeps what it has acknowledged either way.
        if server.poll() is None:
            server.kill()
        print(f"ended with status {server.wait()}", flush=True)


if __name__ == "__main__":
    main()
