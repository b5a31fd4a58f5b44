"""Pins what the container image installs, with hashes (`make lock`).

The locks hold for every platform and for Python 3.11 and newer, so that they can be tried where
the gateway is developed. What is pinned stays as long as pyproject.toml allows it; ``python
deploy/lock.py --upgrade`` takes what is newest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("docling", "grpc", "redis")
"""Of pyproject.toml, in the image. ``ocr`` needs libraries of the system that the base image does
not have: there scans are docling-serve's."""
LOCKS = {"requirements.lock": "pyproject.toml", "build.lock": "deploy/build.in"}
"""What is written, and from what: the gateway's dependencies, and what builds its wheel."""


def main(arguments: list[str]) -> None:
    for lock, source in LOCKS.items():
        extras = [f"--extra={extra}" for extra in EXTRAS] if source.endswith(".toml") else []
        subprocess.run(  # noqa: S603  (what it runs is written here)
            [
                *(sys.executable, "-m", "uv", "pip", "compile", source, *extras),
                *("--universal", "--python-version=3.11", "--generate-hashes", "--no-annotate"),
                *("--quiet", "--custom-compile-command=make lock"),
                *("--no-emit-index-url", "--no-emit-find-links"),
                *(f"--output-file=deploy/{lock}", *arguments),
            ],
            cwd=ROOT,
            check=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
