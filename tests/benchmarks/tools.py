"""The two C programs (compiled on first use), and what the operating system knows of processes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMPILE = ("-O2", "-Wall", "-Wextra")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """Why something could not be measured, in a line for the report."""


def cache_folder() -> Path:
    """Compiled programs and the environments of peers; outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "understudy" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiler() -> str | None:
    return shutil.which("cc")


def compiled(name: str) -> Path:
    """The program made of ``name.c``, compiled unless this very source was before."""
    source = HERE / f"{name}.c"
    key = hashlib.sha256(source.read_bytes() + " ".join(COMPILE).encode()).hexdigest()[:12]
    program = cache_folder() / "bin" / f"{name}-{key}"
    if program.exists():
        return program
    cc = compiler()
    if cc is None:
        raise BenchError("there is no C compiler (cc): apt-get install gcc, or dnf install gcc")
    program.parent.mkdir(exist_ok=True)
    # Another run may compile the same: each to a file of its own, the last rename wins.
    unfinished = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [cc, *COMPILE, "-o", unfinished, source], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{name}.c does not compile:\n{done.stderr}")
    unfinished.replace(program)
    return program


@dataclass(frozen=True)
class Cores:
    """Which core the measured peer has to itself, and which one everything else shares."""

    peer: int
    tools: int

    @property
    def separate(self) -> bool:
        return self.peer != self.tools


def choose_cores() -> Cores:
    """The last allowed core for the peer, the first for the rest: the same one if there is one."""
    if platform.system() != "Linux":
        raise BenchError("the benchmarks need Linux: they use epoll, /proc and CPU affinity")
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(peer=allowed[-1], tools=allowed[0])


def start(
    command: Sequence[str | Path], core: int, log: Path, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process on one core, its output in a file."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=log.parent,
        )
    pin(process.pid, core)
    return process


def pin(pid: int, core: int) -> None:
    """Keep a process, and what it will start, on one core. Called when it has only just begun."""
    os.sched_setaffinity(pid, {core})


def stop(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """SIGTERM, then SIGKILL after ``patience`` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants have used so far."""

    cpu_seconds: float
    rss_mb: float

    def cpu_since(self, before: Usage) -> float:
        return self.cpu_seconds - before.cpu_seconds


def usage(pid: int) -> Usage:
    """CPU time (user and system, to a clock tick) and resident memory (MB) of a process tree."""
    parents: dict[int, list[int]] = {}
    figures: dict[int, tuple[float, float]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        # fields[0] is the state, the third of /proc/PID/stat: the rest follows proc(5), minus 3.
        child = int(entry.name)
        parents.setdefault(int(fields[1]), []).append(child)
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        figures[child] = (cpu, int(fields[21]) * _PAGE / 1e6)
    tree = [pid]
    for member in tree:
        tree.extend(parents.get(member, ()))
    known = [figures[member] for member in tree if member in figures]
    return Usage(sum(cpu for cpu, _ in known), sum(rss for _, rss in known))


def run_load(core: int, options: Sequence[str | Path], patience: float) -> dict[str, Any]:
    """Run the load generator to its end and return what it printed; see load.c for the fields."""
    command = [str(part) for part in (compiled("load"), *options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pin(process.pid, core)
        try:
            out, said = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchError(f"load did not end within {patience:.0f} s") from None
        except BaseException:  # interrupted: leaving the block would wait for its end
            process.kill()
            raise
    if process.returncode:
        raise BenchError(said.decode().strip() or f"load ended with {process.returncode}")
    result: dict[str, Any] = json.loads(out)
    return result


def stolen() -> tuple[float, float]:
    """Seconds of all cores so far: busy or idle, and taken away by the machine's host."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return 0, 0
    ticks = [int(value) for value in first]
    return sum(ticks) / _TICKS, ticks[7] / _TICKS


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
