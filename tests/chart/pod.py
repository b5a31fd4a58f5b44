"""The gateway as it runs in a pod: started by tests/chart/test_container.py.

    python -m tests.chart.pod DATA_DIR            here and now, as whoever runs it
    python -m tests.chart.pod --restricted        in namespaces of its own (needs root)

The second is what restricted-v2 makes of a container: any user id with the group 0, no capability,
every mount read-only but the data folder and /tmp, and no network but loopback. Two liberties: the
process may read whatever root may, since Python can lie in a home folder here, and the model
servers run beside it.

What happened is printed as JSON.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

USER = 1000660000
ROOT = Path(__file__).resolve().parents[2]
DATA, SOURCE = Path("/mnt/data"), Path("/mnt/source")

PAGE = b"<h1>Leave</h1><p>There are thirty days of leave in a year.</p>"


async def use(data_dir: str) -> dict[str, Any]:
    """Start the gateway, and have it do a bit of everything that might write to a disk."""
    from openai import AsyncOpenAI

    from tests.support.gateway import free_port
    from tests.support.upstream import FakeVllm

    async with FakeVllm(["fake-chat"]) as chat, FakeVllm(kind="embedding") as embedding:
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],  # no HOME, no user of that id, nothing else
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PYTHONDONTWRITEBYTECODE": "1",
            "UNDERSTUDY_DATA_DIR": data_dir,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "serve", f"--port={port}"),
            *("--vllm", chat.url, "--vllm", embedding.url),
            cwd="/",
            env=environment,
            stderr=subprocess.PIPE,
        )
        try:
            client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            found = await _listed(client, process)
            store = await client.vector_stores.create(name="handbook")
            file = await client.vector_stores.files.upload_and_poll(
                vector_store_id=store.id, file=("handbook.html", PAGE, "text/html")
            )
            hits = await client.vector_stores.search(store.id, query="leave")
            said = await client.chat.completions.create(
                model="fake-chat", messages=[{"role": "user", "content": "Hello"}]
            )
            outcome = {
                "uid": os.getuid(),
                "models": sorted(found),
                "file": file.status,
                "error": file.last_error and file.last_error.message,
                "hit": hits.data[0].content[0].text if hits.data else None,
                "said": said.choices[0].message.content,
            }
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            _, log = await process.communicate()
            print(log.decode(), file=sys.stderr)
        return {**outcome, "status": process.returncode, "log": log.decode()[-4000:]}


async def _listed(client: Any, process: asyncio.subprocess.Process) -> list[str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.returncode is None:
        try:
            models = [model.id async for model in await client.models.list()]
        except Exception:  # noqa: BLE001  (not up yet, whatever the reason)
            models = []
        if len(models) == 2:
            return models
        await asyncio.sleep(0.2)
    raise SystemExit("the gateway did not come up")


def written_outside() -> list[str]:
    """What the user has left in /tmp and in other places that everybody may write to."""
    return sorted(
        str(file)
        for folder in ("/tmp", "/var/tmp", "/dev/shm")
        for file in Path(folder).rglob("*")
        if file.lstat().st_uid == os.getuid()
    )


def restrict() -> None:
    """Become what a pod is. Runs as root, in new namespaces of mounts and of the network."""
    with socket.socket() as any_socket:  # loopback goes up
        request = struct.pack("16sH14x", b"lo", 1)
        fcntl.ioctl(any_socket, 0x8914, request)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
    DATA.mkdir()
    SOURCE.mkdir()
    # The checkout may lie in /tmp, which is about to be another.
    subprocess.run(["mount", "--bind", ROOT, SOURCE], check=True)
    mounts.append(str(SOURCE))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    os.chown(DATA, 0, 0)
    DATA.chmod(0o770)
    Path("/tmp").chmod(0o1777)
    for place in mounts:
        if not place.startswith(("/proc", "/sys", "/dev")):
            subprocess.run(
                ["mount", "-o", "remount,bind,ro", place], check=False, stderr=subprocess.DEVNULL
            )
    python = Path(sys.executable)
    if python.is_relative_to(ROOT):
        python = SOURCE / python.relative_to(ROOT)
    os.environ["PYTHONPATH"] = str(SOURCE)
    os.chdir(SOURCE)
    read = "+dac_read_search"
    os.execvp(
        "setpriv",
        [
            *("setpriv", f"--reuid={USER}", "--regid=0", "--clear-groups", "--no-new-privs"),
            *(f"--inh-caps=-all,{read}", f"--ambient-caps={read}", f"--bounding-set=-all,{read}"),
            *(str(python), "-m", "tests.chart.pod", str(DATA)),
        ],
    )


def main(argument: str) -> None:
    if argument == "--restricted":
        restrict()
    try:
        (ROOT / ".written").touch()
        read_only = False
        (ROOT / ".written").unlink()
    except OSError:
        read_only = True
    outcome = asyncio.run(use(argument))
    outside = written_outside() if read_only else []
    print(json.dumps({**outcome, "read_only": read_only, "outside": outside}))


if __name__ == "__main__":
    main(sys.argv[1])
