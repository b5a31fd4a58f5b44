"""Runs pytest while its processes, and all that they start, stand still at random.

    python -m tests.support.stalls tests -m "not alone" -n 3     # what `make test-stalled` runs

A crowded or throttled machine does this to a test now and then; here it happens to each process
every few seconds, so that a test which relies on being quick shows it. It reads Linux's `/proc`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

LONGEST = float(os.environ.get("STALL_SECONDS", "1.5"))
CHANCE = 0.12  # of each process, every quarter of a second


def below(root: int) -> list[int]:
    """The processes that this one started, and those that they did, which may run."""
    children: dict[int, list[int]] = defaultdict(list)
    stopped = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it is gone
            continue
        children[int(parent)].append(int(folder.name))
        if state in "TZ":  # a test has stopped it, or it is dead
            stopped.add(int(folder.name))
    found = list(children[root])
    for one in found:
        found += children[one]
    return [one for one in found if one not in stopped]


def send(process: int, number: signal.Signals) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def stall(tests: subprocess.Popen[bytes]) -> int:
    """Until the tests are over; how often a process was stopped."""
    ends: dict[int, float] = {}
    count = 0
    try:
        while tests.poll() is None:
            for one in below(tests.pid):
                if random.random() < CHANCE and send(one, signal.SIGSTOP):
                    ends[one] = time.monotonic() + random.uniform(LONGEST / 5, LONGEST)
                    count += 1
            for _ in range(5):
                time.sleep(0.05)
                for one in [one for one, end in ends.items() if end <= time.monotonic()]:
                    del ends[one]
                    send(one, signal.SIGCONT)
    finally:
        for one in ends:
            send(one, signal.SIGCONT)
    return count


def main() -> int:
    """Pytest's own status."""
    with subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:]]) as tests:
        try:
            count = stall(tests)
        except KeyboardInterrupt:  # pytest has it as well, and ends by itself
            return tests.wait()
    print(f"Processes were stopped {count} times.")
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
