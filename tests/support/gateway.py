"""The gateway as users run it: the console script, in a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml

HOST = "127.0.0.1"
SERVES = "Application startup complete"  # each worker logs this
START_SECONDS = 180.0  # on a busy machine; each imports for some seconds of processor time


class GatewayError(AssertionError):
    """The gateway did not start or did not end; carries the end of its log."""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


class GatewayProcess:
    """`understudy serve` with this configuration, on a free port, in a folder of its own.

        with GatewayProcess({"discover": [upstream.url]}, models=["fake-chat"]) as gateway:
            client = OpenAI(base_url=gateway.base_url, api_key="none")

    `models` are waited for until `GET /v1/models` lists them, and workers until all of them serve.
    Inside a test that runs the upstream in its own event loop, use ``async with``: it waits in a
    thread.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        models: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        arguments: Iterable[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.models = set(models)
        self.config = _with_address(config or {}, self.port)
        self.arguments = list(arguments)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-test-"))

    # -- where and who -----------------------------------------------------------------------

    @property
    def root_url(self) -> str:
        """The address without `/v1`."""
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for `base_url`."""
        return f"{self.root_url}/v1"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """All it has written to stdout and stderr so far."""
        path = self.folder / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def get(self, path: str, timeout: float = 30.0) -> tuple[int, bytes]:
        """Status and body of a GET, without any client library."""
        caller = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            caller.request("GET", path)
            answer = caller.getresponse()
            return answer.status, answer.read()
        finally:
            caller.close()

    @property
    def workers(self) -> int:
        """How many processes serve."""
        if "--workers" in self.arguments:
            return int(self.arguments[self.arguments.index("--workers") + 1])
        return int(self.config["server"].get("workers", 1))

    # -- life --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it serves; after `kill`, the same folder and port again."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "understudy.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        script = Path(sys.executable).with_name("understudy")
        if not script.exists():
            raise GatewayError(f"{script.name} is not installed beside {Path(sys.executable).name}")
        said = len(self.log())
        self._output = (self.folder / "output.log").open("ab")
        self._process = subprocess.Popen(
            [script, "serve", "--config", file, *self.arguments],
            cwd=self.folder,
            env=_environment(self._env),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait(lambda: self.get("/livez")[0] == 200, "/livez")
            self._wait(lambda: self.models <= self.listed_models(), f"models {sorted(self.models)}")
            if self.workers > 1:
                self._wait(lambda: self.log()[said:].count(SERVES) >= self.workers, "all workers")
        except BaseException:
            self.kill()
            raise
        return self

    def listed_models(self) -> set[str]:
        """The ids that `GET /v1/models` lists now."""
        status, body = self.get("/v1/models")
        return {model["id"] for model in json.loads(body)["data"]} if status == 200 else set()

    def terminate(self, timeout: float = 30.0) -> int:
        """SIGTERM, wait, and give the exit status."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int:
        """SIGKILL, as when a node is lost."""
        return self._end(signal.SIGKILL, 10.0)

    def close(self) -> None:
        """End it if it runs, and remove its folder."""
        if self.running:
            try:
                self.terminate()
            except GatewayError:
                self.kill()
                raise
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"gateway log:\n{self.log()[-4000:]}")
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # -- helpers -----------------------------------------------------------------------------

    def _wait(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException, ValueError):
                pass
            if not self.running:
                status = self.process.returncode
                raise GatewayError(f"the gateway ended with status {status}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise GatewayError(f"no {what} in {START_SECONDS:.0f} s:\n{self.log()}")
            time.sleep(0.05)

    def _end(self, number: signal.Signals, timeout: float) -> int:
        try:
            if self.running:
                self.process.send_signal(number)
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GatewayError(
                f"still running {timeout:.0f} s after {number.name}:\n{self.log()}"
            ) from None
        finally:
            if self._output is not None:
                self._output.close()


def _with_address(config: Mapping[str, Any], port: int) -> dict[str, Any]:
    server = {"host": HOST, **config.get("server", {}), "port": port}
    return {**config, "server": server}


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, less all that would configure a gateway or its telemetry."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("UNDERSTUDY_", "OTEL_"))
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}
