"""The demo: real vLLM, the gateway in front of it, and a guided tour. `make demo` runs this.

    python -m tests.demo.run [--vllm URL[,URL]] [--port 8321] [--tour-only]

Without `--vllm` it brings up two vLLM servers itself, one for chat and one for embeddings. What it
started it ends again, on Ctrl-C or SIGTERM; what was there before, it leaves alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx

from tests.real.vllm.install import Progress
from tests.real.vllm.ports import HOST, HeldPort, bindable
from tests.real.vllm.process_group import ProcessGroup
from tests.real.vllm.server import Kind, VllmError, VllmServer

ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = ROOT / "understudy-data"
LOGS = DATA_DIR / "logs"
TOUR = Path(__file__).with_name("tour.py")
KINDS: tuple[Kind, ...] = ("chat", "embeddings")
FIRST_VLLM_PORT = 8000
FIRST_TOOLS_PORT = 8400
DEFAULT_PORT = 8321
GATEWAY_SECONDS = 30.0
# The spelling of "no" in TOUR_ONLY=.
NO = ("", "0", "no", "false")
# Taken by name, SIGINT too: a shell that starts this in the background has it ignored.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """Why there is no demo, said in full."""


def main() -> int:
    arguments = parse()
    for number in ENDINGS:
        signal.signal(number, interrupt)
    status = 130  # until the tour ran, an interruption is one
    try:
        with contextlib.ExitStack() as stack:
            refuse_taken_port(arguments.port)
            urls = arguments.vllm or stack.enter_context(vllm_servers())
            tools = stack.enter_context(tool_server())
            gateway = stack.enter_context(gateway_process(urls, arguments.port, tools))
            base_url = f"http://{HOST}:{arguments.port}/v1"
            models = wait_for_models(gateway, base_url, urls)
            status = tour(base_url)
            if not arguments.tour_only:
                invite(base_url, models)
                watch(gateway)
    except (DemoError, VllmError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(flush=True)
    return status


def parse() -> argparse.Namespace:
    """The command line, with the variables that `make` passes on as defaults."""
    parser = argparse.ArgumentParser(description="Real vLLM, the gateway and a guided tour.")
    parser.add_argument(
        "--vllm", default=os.environ.get("VLLM", ""), help="use these servers: URL[,URL]"
    )
    parser.add_argument("--port", type=int, default=os.environ.get("PORT") or DEFAULT_PORT)
    parser.add_argument(
        "--tour-only",
        action="store_true",
        default=os.environ.get("TOUR_ONLY", "").lower() not in NO,
        help="end after the tour, with its exit status",
    )
    arguments = parser.parse_args()
    arguments.vllm = [url.strip() for url in arguments.vllm.split(",") if url.strip()]
    return arguments


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """End in the same order as on Ctrl-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody interrupt the ending, which takes seconds and must not be left half done."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------ servers


@contextlib.contextmanager
def vllm_servers() -> Iterator[list[str]]:
    """Two vLLM servers, started side by side, on the first free ports from 8000 on; their URLs."""
    servers: list[VllmServer] = []
    try:
        for kind in KINDS:
            port = HeldPort.at_or_after(FIRST_VLLM_PORT)
            server = VllmServer(kind, port, log_path=LOGS / f"vllm-{kind}-{port.port}.log")
            servers.append(server)
            server.start()
            print(f"vLLM with {server.model} at {server.url}/v1, log in {server.log_path}")
        progress = Progress("vLLM starts, which takes about a minute")
        for server in servers:
            server.wait_ready(on_wait=lambda _: progress.beat())
        progress.done("ready")
        yield [f"{server.url}/v1" for server in servers]
    finally:
        with undisturbed(), ThreadPoolExecutor() as pool:
            list(pool.map(VllmServer.stop, servers))


def refuse_taken_port(port: int) -> None:
    """Say so before anything is started; never stop what is there."""
    if not bindable(port):
        raise DemoError(
            f"Port {port} is taken, perhaps by another demo. End that one, or choose another "
            f"port: make demo PORT={port + 1}"
        )


@contextlib.contextmanager
def tool_server() -> Iterator[str]:
    """An MCP server over the demo's report; its URL."""
    port = HeldPort.at_or_after(FIRST_TOOLS_PORT)
    command = [sys.executable, "-m", "tests.demo.tool_server", "--port", str(port.port)]
    server = ProcessGroup(command, LOGS / f"tools-{port.port}.log", cwd=ROOT)
    try:
        server.start()
        yield f"http://{HOST}:{port.port}/mcp"
    finally:
        with undisturbed():
            server.stop()
        port.release()


@contextlib.contextmanager
def gateway_process(urls: list[str], port: int, tools: str) -> Iterator[ProcessGroup]:
    """`understudy serve` in front of these servers."""
    command = Path(sys.executable).with_name("understudy")
    if not command.exists():
        raise DemoError(f"There is no {command}. Install the project first: make setup")
    flags = [flag for url in urls for flag in ("--vllm", url)]
    flags += ["--host", HOST, "--port", str(port), "--data-dir", str(DATA_DIR)]
    connectors = json.dumps([{"id": "lighthouse", "url": tools}])
    print(f"UNDERSTUDY_TOOLS__CONNECTORS='{connectors}' \\")
    print(f"  understudy serve {' '.join(flags)}", flush=True)
    gateway = ProcessGroup(
        [str(command), "serve", *flags],
        LOGS / f"understudy-{port}.log",
        cwd=ROOT,
        env={**os.environ, "UNDERSTUDY_TOOLS__CONNECTORS": connectors},
    )
    try:
        yield gateway.start()
    finally:
        with undisturbed():
            gateway.stop()


def wait_for_models(gateway: ProcessGroup, base_url: str, urls: list[str]) -> list[str]:
    """Wait until the gateway lists a model for each server; their names."""
    progress = Progress("The gateway starts")
    names: list[str] = []
    with httpx.Client(trust_env=False, timeout=5) as client:
        while len(names) < len(urls):
            if not gateway.running:
                raise DemoError(f"The gateway ended early. {gateway.log_tail()}")
            if progress.seconds > GATEWAY_SECONDS:
                raise DemoError(
                    f"After {GATEWAY_SECONDS:.0f} s the gateway lists {names or 'no models'}; "
                    f"one was due from each of {', '.join(urls)}. {gateway.log_tail(10)}"
                )
            progress.beat()
            time.sleep(0.2)
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                listed = client.get(f"{base_url}/models").raise_for_status().json()["data"]
                names = [model["id"] for model in listed]
    progress.done(f"it lists {', '.join(names)}")
    return names


# ------------------------------------------------------------------------------------- the audience


def tour(base_url: str) -> int:
    """Run the tour as a user would; its exit status."""
    print(f"\npython tests/demo/tour.py --base-url {base_url}", flush=True)
    return subprocess.run(
        [sys.executable, str(TOUR), "--base-url", base_url], cwd=ROOT, check=False
    ).returncode


def invite(base_url: str, models: list[str]) -> None:
    """How to go on by oneself."""
    print(
        f"""
The gateway goes on serving. Ctrl-C ends it and what was started with it.

  Python   client = OpenAI(base_url="{base_url}", api_key="none")
  curl     curl {base_url}/chat/completions -H 'content-type: application/json' \\
             -d '{{"model": "{models[0]}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
  Tour     .venv/bin/python tests/demo/tour.py --base-url {base_url}
  Docs     README.md and docs/; logs in {LOGS.relative_to(ROOT)}/
""",
        flush=True,
    )


def watch(gateway: ProcessGroup) -> None:
    """Stay until somebody ends this, or the gateway ends by itself."""
    while gateway.running:
        time.sleep(0.5)
    raise DemoError(f"The gateway ended by itself. {gateway.log_tail()}")


if __name__ == "__main__":
    sys.exit(main())
