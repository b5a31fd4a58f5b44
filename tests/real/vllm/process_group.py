"""A command and all its children as one thing: started apart, frozen, killed, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

STOP_SECONDS = 15.0


class ProcessGroup:
    """A command in its own session, and a guard that ends it when this process is killed."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.log_path = log_path
        self._cwd = cwd
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the command; its output goes to the log, which is begun anew."""
        if self.running:
            raise RuntimeError(f"it runs already: {self.command[0]}")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Should this process be killed outright, the pipe breaks and the guard ends the group.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _ || kill -KILL "-$1"', "guard", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    @property
    def pid(self) -> int:
        """The process id of the command, which is the group's as well."""
        if self._process is None:
            raise RuntimeError(f"it was not started: {self.command[0]}")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the command itself is there."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        with contextlib.suppress(ProcessLookupError):  # all gone
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End the group the hard way, as a crash or an out-of-memory kill does."""
        if self._process is None:
            return
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._wait_gone(STOP_SECONDS)
        self._dismiss_guard()

    def stop(self) -> None:
        """End the group in order, and whatever is left of it the hard way."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a frozen process hears SIGTERM only when it goes on
        self._wait_gone(STOP_SECONDS)
        self.kill()

    def log_tail(self, lines: int = 40) -> str:
        """The end of the log, under its path."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            text = ""
        return "\n".join([f"The end of {self.log_path}:", *text.splitlines()[-lines:]])

    def _wait_gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (self.running or members(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _dismiss_guard(self) -> None:
        if self._guard is None:
            return
        try:
            self._guard.communicate(b"done\n", timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._guard.kill()
            self._guard.wait()
        self._guard = None


def members(group: int) -> list[int]:
    """The living processes of a process group. Zombies don't count: some containers never reap."""
    result: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command's name in parentheses may hold anything; the fields follow it.
            state, _parent, of_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended meanwhile
        if int(of_group) == group and state != "Z":
            result.append(int(entry.name))
    return result
