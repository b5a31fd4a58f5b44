"""Unpack a real Milvus server into a folder outside the repository, once.

    python tests/real/milvus/install.py                # unpack it, or see that it is there
    python tests/real/milvus/install.py --print-home   # where it is

The server is the newest one that the package index carries for Linux (the wheel `milvus`, 60 MB,
250 MB unpacked); it brings its own etcd and message queue. The folder is
`$UNDERSTUDY_MILVUS_HOME`, or `${XDG_CACHE_HOME:-~/.cache}/understudy/milvus`; it holds `wheel/` and
`bin/`. pip's own variables (PIP_INDEX_URL, PIP_FIND_LINKS, ...) are honoured.
"""

from __future__ import annotations

import argparse
import fcntl
import lzma
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "2.3.5"
PACKAGE = f"milvus=={VERSION}"
DONE = f"unpacked-{VERSION}"


class InstallError(Exception):
    """Something that the person at the keyboard has to know, said in full."""


def home() -> Path:
    """The folder that holds the server."""
    if named := os.environ.get("UNDERSTUDY_MILVUS_HOME"):
        return Path(named).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(cache).expanduser() / "understudy" / "milvus").resolve()


def wheel() -> Path:
    """Where the wheel's module `milvus` lies, for its template of a configuration."""
    return home() / "wheel"


def binaries() -> Path:
    """The server and its libraries."""
    return home() / "bin"


def install() -> None:
    """Unpack the server unless that was done; two at once wait for each other."""
    if (home() / DONE).exists():
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise InstallError("the wheel `milvus` holds a server for Linux on x86-64 only")
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home() / DONE).exists():
            return
        print(f"Unpacking Milvus {VERSION} into {home()} (once)", flush=True)
        _fetch()
        _unpack()
        (home() / DONE).touch()


def _fetch() -> None:
    shutil.rmtree(wheel(), ignore_errors=True)
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"),
        *("--disable-pip-version-check", "--target", str(wheel()), PACKAGE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(f"pip could not install {PACKAGE}:\n{done.stderr}")


def _unpack() -> None:
    shutil.rmtree(binaries(), ignore_errors=True)
    binaries().mkdir()
    for packed in sorted((wheel() / "milvus" / "data" / "bin").glob("*.lzma")):
        target = binaries() / packed.stem
        with lzma.open(packed) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description="Unpack a real Milvus server.")
    parser.add_argument("--print-home", action="store_true", help="print the folder and stop")
    if parser.parse_args().print_home:
        print(home())
        return 0
    try:
        install()
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Milvus is ready in {home()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
