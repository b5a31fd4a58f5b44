"""Processes of this machine, as ``/proc`` tells of them."""

from __future__ import annotations

import os
from pathlib import Path


def workers_of(pid: int) -> set[int]:
    """A supervisor's worker processes."""
    return {child for child in children(pid) if "spawn_main" in command(child)}


def children(pid: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command(pid: int) -> str:
    """Empty for a process that is gone by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
