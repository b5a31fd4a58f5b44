"""Where the gateway's time goes: py-spy looks at it from outside while it answers JSON."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.benchmarks.peers import GATEWAY, Place, cached_tool
from tests.benchmarks.scenarios import measure, named
from tests.benchmarks.tools import BenchError, pin

RATE = 400
"""Samples a second: enough for functions of 1 %, cheap enough for py-spy on the other core."""


def profile(place: Place, target: Path, seconds: float, scenario: str = "json") -> str:
    """Write folded stacks (for any flame graph viewer) to ``target``; returns the top functions."""
    program = cached_tool("py-spy", "py-spy")
    chosen = named([scenario])[0]
    with GATEWAY.running(place) as running:
        command = [program, "record", "--pid", str(running.pid), "--rate", str(RATE)]
        command += ["--duration", str(int(seconds) + 600), "--nonblocking"]
        command += ["--format", "raw", "--output", target]
        recorder = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        pin(recorder.pid, place.cores.tools)
        try:
            result = measure(chosen, GATEWAY, running, place.upstream, place.cores, seconds)
        finally:
            recorder.send_signal(signal.SIGINT)  # it writes what it has
            _, said = recorder.communicate(timeout=60)
    if not target.exists() or not target.stat().st_size:
        raise BenchError(f"py-spy recorded nothing: {said.decode(errors='replace').strip()}")
    print(f"under the profiler: {result['rate']:,.0f} req/s", file=sys.stderr)
    return _summary(target)


def _summary(target: Path, limit: int = 25) -> str:
    """Share of samples in each function itself, and below it."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in target.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        functions = [_without_line(frame) for frame in stack.split(";")]
        own[functions[-1]] += int(count)
        for function in set(functions):
            below[function] += int(count)
    total = sum(own.values()) or 1
    lines = ["  own   all  function"]
    for name, samples in own.most_common(limit):
        lines.append(f"{100 * samples / total:4.1f}% {100 * below[name] / total:4.1f}%  {name}")
    return "\n".join(lines)


def _without_line(frame: str) -> str:
    """``name (file.py:12)`` without the line, so that a function is one entry."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") and ":" in frame else frame
