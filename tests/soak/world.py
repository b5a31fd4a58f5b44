"""The processes of a soak: each can be killed and started again; how much memory each has."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.support.gateway import HOST, GatewayProcess, free_port

Kind = Literal["replica", "worker", "backend"]
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180.0
SAMPLE_SECONDS = 1.0
_PAGE = resource.getpagesize()


@dataclass
class Kill:
    """A death: who, and from when until when (``time.monotonic``) it was not there."""

    kind: Kind
    name: str
    at: float
    back: float | None = None


class Member:
    """One process."""

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind = kind
        self.name = name
        self.spared = False
        """It is never killed, so that its memory can be watched."""
        self.memory: list[tuple[float, float]] = []
        """Moments and MiB, of the process that runs now."""

    @property
    def pid(self) -> int:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """In order, where it has one."""
        self.kill()

    def sample(self) -> None:
        with contextlib.suppress(OSError, IndexError, AssertionError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.memory.append((time.monotonic(), pages * _PAGE / 2**20))


class Replica(Member):
    """`understudy serve`."""

    def __init__(self, name: str, config: Mapping[str, Any], models: list[str]) -> None:
        super().__init__("replica", name)
        self.gateway = GatewayProcess(config, models=models)

    @property
    def pid(self) -> int:
        return self.gateway.pid

    def start(self) -> None:
        self.memory.clear()
        self.gateway.start()

    def kill(self) -> None:
        self.gateway.kill()

    def end(self) -> None:
        if self.gateway.running:
            self.gateway.terminate()

    def log(self) -> str:
        return self.gateway.log()


class Child(Member):
    """A command; ``ready`` says whether it may be relied on."""

    def __init__(
        self, kind: Kind, name: str, command: list[str], ready: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(kind, name)
        self._command = command
        self._ready = ready
        self._folder = tempfile.TemporaryDirectory(prefix="understudy-soak-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.memory.clear()
        with (Path(self._folder.name) / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, f"{self.name} ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready"
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            finally:
                self.kill()

    def log(self) -> str:
        return (Path(self._folder.name) / "output.log").read_text(errors="replace")


def backend(kind: str, number: int) -> tuple[Child, str]:
    """A fake model server and its URL."""
    port = free_port()

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return True
        return False

    command = [sys.executable, "-m", "tests.soak.backend", kind, str(port)]
    return Child("backend", f"{kind}-{number}", command, listens), f"http://{HOST}:{port}/v1"


def worker(number: int, config: Mapping[str, Any], folder: Path) -> Child:
    """`understudy worker`."""
    file = folder / f"worker-{number}.yaml"
    own = {**config, "data_dir": str(folder / f"worker-{number}")}
    file.write_text(yaml.safe_dump(own))
    script = str(Path(sys.executable).with_name("understudy"))
    return Child("worker", f"worker-{number}", [script, "worker", "--config", str(file)])


@dataclass
class World:
    members: list[Member]
    kills: list[Kill] = field(default_factory=list)

    def of(self, kind: Kind) -> list[Member]:
        return [one for one in self.members if one.kind == kind]

    async def start(self) -> None:
        """Model servers first: the others look for them."""
        for kinds in (("backend",), ("replica", "worker")):
            await asyncio.gather(
                *(asyncio.to_thread(one.start) for one in self.members if one.kind in kinds)
            )

    async def end(self) -> None:
        """Those first that use the others."""
        for kind in ("worker", "replica", "backend"):
            await asyncio.gather(*(asyncio.to_thread(one.end) for one in self.of(kind)))

    async def strike(self, victim: Member, away: float) -> None:
        """kill -9, and a new start after so many seconds."""
        kill = Kill(victim.kind, victim.name, time.monotonic())
        self.kills.append(kill)
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(away)
        await asyncio.to_thread(victim.start)
        kill.back = time.monotonic()

    async def rage(self, every: float, chance: random.Random) -> None:
        """Kill one after the other, until cancelled between two of them."""
        while True:
            await asyncio.sleep(chance.uniform(0.5 * every, 1.5 * every))
            kind = chance.choice(("replica", "worker", "backend"))
            victim = chance.choice([one for one in self.of(kind) if not one.spared])
            strike = asyncio.create_task(self.strike(victim, chance.uniform(0.2, 2)))
            try:
                await asyncio.shield(strike)
            except asyncio.CancelledError:
                await strike  # the victim comes back all the same
                raise

    async def watch_memory(self) -> None:
        while True:
            for one in self.members:
                if one.kind != "backend":
                    one.sample()
            await asyncio.sleep(SAMPLE_SECONDS)
