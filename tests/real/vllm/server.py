"""Real vLLM servers for tests and the demo, on 127.0.0.1, in the environment of install.py.

    with VllmServer("chat") as server:
        server.wait_ready()
        ...                      # server.url, server.model

    python tests/real/vllm/server.py chat --port 8000 [any flag of `vllm serve`]

`start` returns at once, so two servers start side by side: start both, then wait for both.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, NoReturn, Self

if __package__:
    from .install import CHAT_MODEL, EMBEDDING_MODEL, environment_python, home, model_folder
    from .ports import HOST, HeldPort, bindable
    from .process_group import ProcessGroup
else:  # run as a command
    from install import CHAT_MODEL, EMBEDDING_MODEL, environment_python, home, model_folder
    from ports import HOST, HeldPort, bindable
    from process_group import ProcessGroup

HERE = Path(__file__).resolve().parent
READY_SECONDS = 300.0

Kind = Literal["chat", "embeddings"]

SERVED_NAMES: dict[Kind, str] = {"chat": "smollm2-135m", "embeddings": "all-minilm-l6-v2"}

CHAT_FLAGS = (
    *("--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "8"),
    # Without eager mode a start takes minutes, for no clear gain on a CPU.
    "--enforce-eager",
    # The model's own template ignores tools and fails on `content: null`.
    *("--chat-template", str(HERE / "tool_template.jinja")),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
EMBEDDING_FLAGS = (
    *("--runner", "pooling", "--dtype", "float32", "--max-num-seqs", "16", "--enforce-eager"),
)


class VllmError(Exception):
    """A server that did not start, with the end of its log."""


class VllmServer:
    """One vLLM server with its engine processes."""

    def __init__(
        self,
        kind: Kind,
        port: int | HeldPort | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        log_path: Path | str | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.model = SERVED_NAMES[kind]
        self.extra_args = tuple(extra_args)
        self.env = dict(env or {})
        # A number that the caller names is the caller's to keep apart from others.
        self._held = HeldPort.any() if port is None else port
        self.port = self._held.port if isinstance(self._held, HeldPort) else self._held
        self.url = f"http://{HOST}:{self.port}"
        self.log_path = Path(log_path or home() / "logs" / f"{kind}-{self.port}.log").resolve()
        self._group = ProcessGroup(self.command(), self.log_path, home(), self.environment())

    def command(self) -> list[str]:
        """The command line."""
        chat = self.kind == "chat"
        return [
            str(environment_python()),
            str(environment_python().with_name("vllm")),
            "serve",
            str(model_folder(CHAT_MODEL if chat else EMBEDDING_MODEL)),
            *("--served-model-name", self.model, "--host", HOST, "--port", str(self.port)),
            *(CHAT_FLAGS if chat else EMBEDDING_FLAGS),
            *self.extra_args,
        ]

    def environment(self) -> dict[str, str]:
        """The environment: no downloads, no reports to anyone, 127.0.0.1 only, few cores."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        return {
            **inherited,
            "PATH": f"{environment_python().parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_HOME": str(home() / "hf"),
            "VLLM_CACHE_ROOT": str(home() / "cache"),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_HOST_IP": HOST,
            "VLLM_LOOPBACK_IP": HOST,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": cores(self.kind),
            # Else the first request for logprobs compiles C++ for half a minute.
            "TORCHDYNAMO_DISABLE": "1",
            **self.env,
        }

    # ------------------------------------------------------------------------------------ start

    def start(self) -> Self:
        """Start the server and return at once; `wait_ready` tells when it answers."""
        if not environment_python().exists():
            raise VllmError(
                f"no vLLM in {home()}. Build it first: python tests/real/vllm/install.py"
            )
        if not bindable(self.port):
            raise VllmError(f"port {self.port} is taken")
        self._group.start()
        return self

    def wait_ready(
        self, timeout: float = READY_SECONDS, on_wait: Callable[[float], None] | None = None
    ) -> Self:
        """Wait until the server answers. `on_wait` hears now and then for how many seconds."""
        started = time.monotonic()
        while not self.ready():
            waited = time.monotonic() - started
            if not self.running:
                raise VllmError(f"the {self.kind} server ended early. {self.log_tail()}")
            if waited > timeout:
                raise VllmError(f"no {self.kind} server in {timeout:.0f} s. {self.log_tail()}")
            if on_wait is not None:
                on_wait(waited)
            time.sleep(0.25)
        return self

    def ready(self) -> bool:
        """Whether the server answers and its engine is well."""
        if not self.running:
            return False
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=5)) as caller:
            try:
                caller.request("GET", "/health")
                return caller.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def log_tail(self, lines: int = 40) -> str:
        """The end of the log, under its path."""
        return self._group.log_tail(lines)

    # --------------------------------------------------------------------------------- mistreat

    @property
    def pid(self) -> int:
        """The process id of the API server, which is its process group's as well."""
        return self._group.pid

    @property
    def running(self) -> bool:
        """Whether the API server's process is there (it may still be starting)."""
        return self._group.running

    def pause(self) -> None:
        """Freeze the whole group: connections stay open and nothing answers."""
        self._group.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._group.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the whole group the hard way. `start` brings it back on the same port."""
        self._group.kill()

    def stop(self) -> None:
        """End the group, and leave nothing of it behind. `start` brings it back."""
        self._group.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def cores(kind: Kind) -> str:
    """Which cores a server may use: the chat server the first half, the other one the second."""
    here = sorted(os.sched_getaffinity(0))
    half = max(1, len(here) // 2)
    mine = here[:half] if kind == "chat" else here[-half:]
    return ",".join(str(core) for core in mine[:4])  # such small models gain nothing from more


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run one server until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Run one real vLLM server on 127.0.0.1.",
        epilog="Further arguments are passed on to `vllm serve`.",
    )
    parser.add_argument("kind", choices=sorted(SERVED_NAMES))
    parser.add_argument("--port", type=int, help="default: any free port")
    parser.add_argument("--log", type=Path, help="default: in the environment's folder")
    arguments, extra = parser.parse_known_args()
    signal.signal(signal.SIGTERM, _interrupt)
    server: VllmServer | None = None
    try:
        server = VllmServer(arguments.kind, arguments.port, extra, log_path=arguments.log)
        started = time.monotonic()
        print(f"{server.model} starts at {server.url}/v1, log in {server.log_path}", flush=True)
        server.start().wait_ready()
        print(f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends it", flush=True)
        while server.running:
            time.sleep(0.5)
        print(f"The server ended by itself. {server.log_tail()}", file=sys.stderr)
    except VllmError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    finally:
        if server is not None:
            server.stop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
