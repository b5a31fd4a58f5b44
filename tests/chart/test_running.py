"""What the manifests run does run: arguments, variables, settings, probes and `helm test`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.settings import Settings
from tests.support.chart import changed, named, render, settings_file, values_of
from tests.support.gateway import free_port
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

MANIFESTS = render(values_of("minimal"))
CONTAINER: dict[str, Any] = named(MANIFESTS, "Deployment", "understudy")["spec"]["template"][
    "spec"
]["containers"][0]


@asynccontextmanager
async def container(folder: Path, upstream: str, arguments: list[str]) -> AsyncIterator[Any]:
    """The process of a pod, on loopback and on free ports; yields it, and the ports by name."""
    settings = yaml.safe_load(settings_file(MANIFESTS, "understudy"))
    settings["discover"] = [upstream]
    for coming in {"identity", "kserve"} - set(Settings.__struct_fields__):
        settings.pop(coming, None)
    file = folder / "understudy.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ports = {"http": free_port(), "http-management": free_port()}
    given = {one["name"]: one["value"] for one in CONTAINER["env"] if "value" in one}
    environment = {
        **given,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "UNDERSTUDY_CONFIG": str(file),
        "UNDERSTUDY_DATA_DIR": str(folder / "data"),
        "UNDERSTUDY_SERVER__HOST": "127.0.0.1",
        "UNDERSTUDY_SERVER__PORT": str(ports["http"]),
        "UNDERSTUDY_SERVER__MANAGEMENT_PORT": str(ports["http-management"]),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *arguments, env=environment
    )
    try:
        yield process, ports
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def becomes_ready(process: Any, ports: dict[str, int], probe: dict[str, Any]) -> None:
    """Ask as the kubelet does, until the answer is 200."""
    url = f"http://127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for _ in range(600):
            assert process.returncode is None, "it ended"
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"{url} never said 200")


async def test_a_server_pod_serves_and_passes_the_test_of_helm(tmp_path: Path):
    """Started as the Deployment starts it, it answers its probes, and `helm test` is content."""
    [pod] = [one for one in MANIFESTS if one["kind"] == "Pod"]
    async with (
        FakeVllm(["fake-chat"]) as upstream,
        container(tmp_path, upstream.url, CONTAINER["args"]) as (process, ports),
    ):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            await becomes_ready(process, ports, CONTAINER[probe])
        command = [
            argument.replace("understudy-management:9090", f"127.0.0.1:{ports['http-management']}")
            .replace("understudy:8321", f"127.0.0.1:{ports['http']}")
            .replace("python", sys.executable, 1 if argument == "python" else 0)
            for argument in pod["spec"]["containers"][0]["command"]
        ]
        test = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await test.communicate()
        assert test.returncode == 0, printed
        assert printed.decode().count("\n") == 2
        wrong = [*command[:3], f"http://127.0.0.1:{ports['http']}/v1/files/file-none"]
        test = await asyncio.create_subprocess_exec(*wrong, stdout=asyncio.subprocess.PIPE)
        await test.communicate()
        assert test.returncode == 1, "anything but 200, and 401 of the list, is a failure"


async def test_a_worker_pod_answers_its_probes(tmp_path: Path):
    """Its arguments start a worker, which has the management port."""
    manifests = render(changed(values_of("production"), {}))
    worker = named(manifests, "Deployment", "understudy-worker")["spec"]["template"]["spec"][
        "containers"
    ][0]
    async with (
        FakeVllm(["fake-chat"]) as upstream,
        container(tmp_path, upstream.url, worker["args"]) as (process, ports),
    ):
        await becomes_ready(process, ports, worker["readinessProbe"])


async def test_a_migration_brings_up_the_schema(tmp_path: Path):
    """The Job's arguments are a command that ends well."""
    [job] = [one for one in render(values_of("production")) if one["kind"] == "Job"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    async with container(tmp_path, "http://127.0.0.1:9", arguments) as (process, _):
        assert await process.wait() == 0
