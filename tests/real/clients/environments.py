"""A cached environment per client library, so that two versions of one SDK never meet.

An environment is a folder ``NAME-HASH`` under the cache home; the hash covers its requirements and
the Python that made it, so a changed version range builds a new one and leaves the old alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

SCRIPTS = Path(__file__).parent / "scripts"
COMPLETE = ".complete"
Say = Callable[[str], object]
NODE_MAJOR = 22  # the least that the `openai` package for Node accepts


class ClientError(AssertionError):
    """A client could not be installed, or its script failed."""


def cache_home() -> Path:
    """The folder of all environments, ``$UNDERSTUDY_CLIENTS_HOME`` when that is set."""
    if chosen := os.environ.get("UNDERSTUDY_CLIENTS_HOME"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "understudy" / "clients"


@dataclass(frozen=True)
class Client:
    """One client library: what to install, and the script that uses it.

    ``requirements`` are pip's; ``packages`` are npm's, and make it a client for Node.
    """

    name: str
    script: str
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        recipe = [platform.python_version(), *self.requirements, *self.packages]
        if self.packages:
            recipe.append(str(_node_on_path()))
        digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
        return cache_home() / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        """The environment's own Python."""
        return self.folder / "bin" / "python"

    def build(self, say: Say = print) -> None:
        """Make the environment unless it is complete; a second builder waits for the first."""
        if (self.folder / COMPLETE).exists():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder.with_suffix(".lock")):
            if (self.folder / COMPLETE).exists():
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            started = time.monotonic()
            say(f"{self.name}: building {', '.join(self.requirements + self.packages)}")
            if self.packages:
                self._install_for_node()
            else:
                self._install_for_python()
            (self.folder / COMPLETE).touch()
            say(f"{self.name}: built in {time.monotonic() - started:.0f} s")

    def run(self, **settings: str) -> dict[str, Any]:
        """Run the script with these settings in its environment; give back its one JSON line."""
        interpreter = node_in(self.folder) if self.packages else self.python
        script = SCRIPTS / self.script
        if self.packages:  # Node looks for packages beside the script, so it runs from a copy
            script = Path(shutil.copy(script, self.folder / self.script))
        done = subprocess.run(
            [interpreter, script],
            env=_environment(settings),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0 or not done.stdout.strip():
            raise ClientError(f"{self.name} failed:\n{done.stdout}\n{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer

    def _install_for_python(self) -> None:
        self._command(sys.executable, "-m", "venv", self.folder)
        self._command(self.python, "-m", "pip", "install", "--quiet", *self.requirements)

    def _install_for_node(self) -> None:
        self.folder.mkdir()
        if _node_on_path() is None:
            self._command(sys.executable, "-m", "venv", self.folder)
            self._command(self.python, "-m", "pip", "install", "--quiet", *self.requirements)
        (self.folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        flags = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        npm = node_in(self.folder).with_name("npm")
        self._command(npm, "install", "--prefix", self.folder, *flags, *self.packages)

    def _command(self, *command: str | Path) -> None:
        path = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            words = " ".join(str(word) for word in command)
            raise ClientError(f"{self.name} could not be installed by `{words}`:\n{done.stderr}")


class Builds:
    """Environments being built beside each other; ``wait_for`` one to use it.

    What the builders say is handed on by the thread that waits, as pytest's capture needs it.
    """

    def __init__(self, clients: list[Client], say: Say = print, at_once: int = 2) -> None:
        self._say = say
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="client-build")
        self._builds: dict[str, Future[None]] = {
            client.name: self._pool.submit(client.build, self._lines.put) for client in clients
        }

    def wait_for(self, client: Client) -> Client:
        """Give the client once its environment is complete; raises what its build raised."""
        build = self._builds[client.name]
        while not wait([build], timeout=0.5).done:
            self._hand_on()
        self._hand_on()
        build.result()
        return client

    def close(self) -> None:
        """Start no further build, and wait for those that run."""
        self._pool.shutdown(cancel_futures=True)

    def _hand_on(self) -> None:
        while not self._lines.empty():
            self._say(self._lines.get())


def node_in(folder: Path) -> Path:
    """The Node that serves this environment: the one on PATH when it is new enough, or its own."""
    return _node_on_path() or folder / "bin" / "node"


@cache
def _node_on_path() -> Path | None:
    found = shutil.which("node")
    if found is None or not Path(found).with_name("npm").exists():
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    major = version.stdout.strip().removeprefix("v").split(".")[0]
    return Path(found) if major.isdigit() and int(major) >= NODE_MAJOR else None


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, less any key or address that an SDK would pick up by itself."""
    foreign = ("OPENAI_", "ANTHROPIC_", "OGX_", "LLAMA_", "LANGCHAIN_", "LANGSMITH_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", **settings}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
