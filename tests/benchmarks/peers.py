"""What is measured: the upstream itself, nginx, LiteLLM and the gateway. One runs at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.benchmarks.tools import BenchError, Cores, cache_folder, compiled, start, stop

CHAT, EMBED = "bench-chat", "bench-embed"


@dataclass
class Upstream:
    """The C server: a chat server, an embedding server, and a sink for OpenTelemetry."""

    process: subprocess.Popen[bytes]
    sink_process: subprocess.Popen[bytes]
    chat: int
    embed: int
    sink: int

    def stats(self) -> dict[str, int]:
        """The counters of requests and streams."""
        found: dict[str, int] = httpx.get(f"http://127.0.0.1:{self.chat}/stats").json()
        return found

    def sink_stats(self) -> dict[str, int]:
        """The counters of spans. The sink is a process of its own, so that its work does not count
        as the upstream's."""
        found: dict[str, int] = httpx.get(f"http://127.0.0.1:{self.sink}/stats").json()
        return found


@contextlib.contextmanager
def upstream(core: int, folder: Path) -> Iterator[Upstream]:
    """Run the upstream and the sink."""

    def launch(name: str, *flags: str) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        log = folder / f"{name}.log"
        log.unlink(missing_ok=True)
        process = start([compiled("upstream"), *flags], core, log)
        wait_for(lambda: log.read_text().endswith("\n"), 10, process, log)
        return process, json.loads(log.read_text())

    with contextlib.ExitStack() as stack:
        process, ports = launch("upstream", "--chat", "0", "--embed", "0")
        stack.callback(stop, process)
        sink, sink_ports = launch("sink", "--sink", "0")
        stack.callback(stop, sink)
        yield Upstream(process, sink, ports["chat"], ports["embed"], sink_ports["sink"])


@dataclass(frozen=True)
class Place:
    """Where a peer is started: its core, a folder for its files, and the servers behind it."""

    cores: Cores
    folder: Path
    upstream: Upstream


@dataclass
class Running:
    """A peer that answers: where, and which process tree is it."""

    port: int
    pid: int
    embed_port: int
    process: subprocess.Popen[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """What every request must carry, such as a key."""

    @staticmethod
    def started(
        process: subprocess.Popen[bytes], port: int, headers: dict[str, str] | None = None
    ) -> Running:
        return Running(port, process.pid, port, process, headers or {})


@dataclass(frozen=True)
class Peer:
    """A way from the load generator to the upstream."""

    name: str
    launch: Callable[[Place], Running]
    version: Callable[[], str]
    """Raises :class:`BenchError` when the peer cannot be run here."""
    exact_events: bool = True
    """Whether it must hand on exactly the events of a stream. LiteLLM makes its own."""
    traces: bool = False
    """Whether two spans for each request are expected at the sink."""
    traceparent: bool = True
    """Whether requests carry a sampled ``traceparent``."""

    @contextlib.contextmanager
    def running(self, place: Place) -> Iterator[Running]:
        running = self.launch(place)
        try:
            yield running
        finally:
            if running.process is not None:
                stop(running.process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(
    ready: Callable[[], bool],
    seconds: float,
    process: subprocess.Popen[bytes],
    log: Path,
) -> None:
    """Wait until ``ready``; a process that ends or stays silent is an error with its last words."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
            if ready():
                return
        time.sleep(0.1)
    said = log.read_text(errors="replace").strip().splitlines()[-12:]
    stop(process, 2)
    raise BenchError(f"{log.stem} did not come up in {seconds:.0f} s\n" + "\n".join(said))


def lists_both(port: int, headers: dict[str, str] | None = None) -> Callable[[], bool]:
    """Whether ``GET /v1/models`` knows both models."""

    def ready() -> bool:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers, timeout=5)
        return {CHAT, EMBED} <= {model["id"] for model in answer.json()["data"]}

    return ready


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without proxies and without settings of telemetry or the gateway."""
    unwanted = re.compile(r"(https?|all|no)_proxy|OTEL_.*|UNDERSTUDY_.*", re.IGNORECASE)
    return {k: v for k, v in os.environ.items() if not unwanted.fullmatch(k)} | more


# --------------------------------------------------------------------------------- the upstream


def _launch_direct(place: Place) -> Running:
    up = place.upstream
    return Running(up.chat, up.process.pid, up.embed)


# ----------------------------------------------------------------------------------------- nginx

# Reads of 32 KiB: with the default of one page, half a megabyte of embeddings takes nginx six times
# as long, and the comparison would flatter the gateway.
_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    keepalive_requests 1000000000;
    upstream chat {{ server 127.0.0.1:{chat}; keepalive 512; keepalive_requests 1000000000; }}
    upstream embed {{ server 127.0.0.1:{embed}; keepalive 512; keepalive_requests 1000000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    proxy_buffer_size 32k;
    proxy_buffers 8 32k;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://chat; }}
        location = /v1/embeddings {{ proxy_pass http://embed; }}
    }}
}}
"""


def _find_nginx() -> str:
    # Debian puts it where only root's PATH looks.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError("nginx is not installed: apt-get install nginx, or dnf install nginx")
    return found


def _nginx_version() -> str:
    told = subprocess.run([_find_nginx(), "-v"], capture_output=True, text=True, check=False)
    return told.stderr.rpartition("/")[2].strip()


def _launch_nginx(place: Place) -> Running:
    port = free_port()
    folder = place.folder / "nginx"
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=folder,
            port=port,
            chat=place.upstream.chat,
            embed=place.upstream.embed,
            user="user root;" if os.geteuid() == 0 else "",  # some builds name an unknown group
        )
    )
    log = place.folder / "nginx.log"
    process = start([_find_nginx(), "-p", folder, "-c", config], place.cores.peer, log)
    url = f"http://127.0.0.1:{port}/v1/models"
    wait_for(lambda: httpx.get(url).status_code == 200, 10, process, log)
    return Running.started(process, port)


# --------------------------------------------------------------------------------------- LiteLLM


def cached_tool(package: str, program: str) -> Path:
    """A program of a Python package in an environment of its own, installed on first use."""
    home = cache_folder() / f"{program}-venv"
    path = home / "bin" / program
    done = home / ".installed"
    if done.exists() and path.exists():
        return path
    print(f"installing {package} (once) …", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", package],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            why = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BenchError(f"{package} could not be installed: {why}")
    done.touch()
    return path


def _litellm_version() -> str:
    python = cached_tool("litellm[proxy]", "litellm").parent / "python"
    code = "from importlib.metadata import version; print(version('litellm'))"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def _launch_litellm(place: Place) -> Running:
    program = cached_tool("litellm[proxy]", "litellm")
    port = free_port()
    up = place.upstream
    config = place.folder / "litellm.yaml"
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                "api_key": "none",
            },
        }
        for name, upstream_port in ((CHAT, up.chat), (EMBED, up.embed))
    ]
    config.write_text(yaml.safe_dump({"model_list": models, "litellm_settings": {"callbacks": []}}))
    log = place.folder / "litellm.log"
    key = f"sk-{secrets.token_hex(16)}"  # it does not start without one
    env = clean_environment(
        LITELLM_MASTER_KEY=key,
        LITELLM_LOCAL_MODEL_COST_MAP="True",  # else it downloads a price list when it starts
        LITELLM_TELEMETRY="False",
        LITELLM_LOG="ERROR",
        LITELLM_MODE="PRODUCTION",
        NO_DOCS="True",
    )
    command: list[str | Path] = [program, "--config", config, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    process = start(command, place.cores.peer, log, env)
    headers = {"authorization": f"Bearer {key}"}
    wait_for(lists_both(port, headers), 120, process, log)
    return Running.started(process, port, headers)


# ----------------------------------------------------------------------------------- the gateway


def _gateway_program() -> Path:
    program = Path(sys.executable).parent / "understudy"
    if not program.exists():
        raise BenchError("understudy is not installed beside this Python: make setup")
    return program


def _gateway_version() -> str:
    told = subprocess.run(
        [_gateway_program(), "--version"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip().rpartition(" ")[2]


def _launch_gateway(sampler: str) -> Callable[[Place], Running]:
    def launch(place: Place) -> Running:
        port = free_port()
        up = place.upstream
        config = place.folder / "understudy.yaml"
        settings: dict[str, Any] = {
            "server": {"host": "127.0.0.1", "port": port, "workers": 1},
            "discover": [f"http://127.0.0.1:{up.chat}/v1", f"http://127.0.0.1:{up.embed}/v1"],
        }
        config.write_text(yaml.safe_dump(settings))
        env = clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{up.sink}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_TRACES_SAMPLER=sampler,
        )
        log = place.folder / f"understudy-{sampler}.log"
        command: list[str | Path] = [_gateway_program(), "serve", "--config", config]
        command += ["--data-dir", place.folder / "data"]
        process = start(command, place.cores.peer, log, env)
        wait_for(lists_both(port), 60, process, log)
        return Running.started(process, port)

    return launch


DIRECT = Peer("direct", _launch_direct, lambda: "")
NGINX = Peer("nginx", _launch_nginx, _nginx_version)
LITELLM = Peer("litellm", _launch_litellm, _litellm_version, exact_events=False)
GATEWAY = Peer("gateway", _launch_gateway("always_on"), _gateway_version, traces=True)
UNSAMPLED = Peer(
    "unsampled", _launch_gateway("parentbased_always_off"), _gateway_version, traceparent=False
)
"""The gateway with a parent-based sampler that starts no trace of its own. Without traceparent: a
sampled one would make such a sampler record the request after all."""

PEERS = (DIRECT, NGINX, LITELLM, GATEWAY, UNSAMPLED)


@dataclass
class Available:
    """The peers that can run here with their versions, and why the others cannot."""

    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_peers(wanted: set[str], *, litellm: bool) -> Available:
    """Ask each wanted peer for its version, which also installs LiteLLM on first use."""
    found = Available()
    for peer in PEERS:
        if peer.name not in wanted:
            continue
        if peer is LITELLM and not litellm:
            found.skipped[peer.name] = "--no-litellm"
            continue
        try:
            found.versions[peer.name] = peer.version()
        except BenchError as error:
            found.skipped[peer.name] = str(error)
    return found
