"""The ingestion pipeline as it is compiled, run by `kfp.local` against a gateway and a bucket."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from minio import Minio

from adapters.kubeflow import PIPELINE
from adapters.kubeflow.server import KubeflowServer
from gateway.settings import KubeflowSettings
from tests.real.clients.environments import Client
from tests.real.s3.server import S3Server
from tests.support.gateway import GatewayProcess
from tests.support.kubeflow.api import PipelinesApi
from tests.support.upstream import FakeVllm

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

# Exactly: what is compiled says which version has done it.
KFP = Client("kfp", "", ("kfp==2.17.0", "kfp-kubernetes==2.17.0", "kfp-pipeline-spec==2.17.3"))
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "support" / "kubeflow" / "local_run.py"


@pytest.fixture(scope="module")
def kfp() -> Path:
    """A Python that has KFP."""
    KFP.build()
    return KFP.python


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with (
        FakeVllm(["fake-embedding"], kind="embedding") as upstream,
        GatewayProcess({"discover": [upstream.url]}, models=["fake-embedding"]) as gateway,
    ):
        yield gateway


class Bucket:
    """A bucket of its own on the S3 server."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"documents-{uuid4().hex[:8]}"
        self.client = Minio(
            server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            secure=False,
        )
        self.client.make_bucket(self.name)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(self.name, key, io.BytesIO(content), len(content))


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[Bucket]:
    return Bucket(s3)


async def call(*command: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
        )
    )


async def run(
    kfp: Path, gateway: GatewayProcess, bucket: Bucket, folder: Path, **arguments: Any
) -> subprocess.CompletedProcess[str]:
    """The pipeline, from its first task to its last."""
    given = {
        "gateway": gateway.base_url,
        "bucket": bucket.name,
        "store": bucket.name,
        "prefix": "manuals/",
        "s3_endpoint": f"http://{bucket.server.endpoint}",
        "documents_per_task": 2,
        **arguments,
    }
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": bucket.server.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.server.secret_key,
    }
    return await call(kfp, SCRIPT, PIPELINE, json.dumps(given), folder, env=environment)


async def stored(gateway: GatewayProcess, name: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The store of this name, and its files by their sources."""
    async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
        stores = (await client.get("/v1/vector_stores?limit=100")).json()["data"]
        [store] = [one["id"] for one in stores if one["name"] == name]
        files = (await client.get(f"/v1/vector_stores/{store}/files?limit=100")).json()["data"]
        found = {one["attributes"]["source"]: one for one in files}
        assert len(found) == len(files)
        return store, found


async def found(gateway: GatewayProcess, store: str, query: str) -> list[dict[str, Any]]:
    body = {"query": query, "search_mode": "keyword"}
    async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
        answer = await client.post(f"/v1/vector_stores/{store}/search", json=body)
        return answer.json()["data"]


async def test_the_checked_in_pipeline_is_current(kfp: Path, tmp_path: Path):
    """Compiled anew, it is the file that is there."""
    made = tmp_path / "pipeline.yaml"
    command = (kfp, "-m", "adapters.kubeflow.pipeline", made)
    done = await call(*command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert made.read_text() == PIPELINE.read_text()


async def test_a_bucket_goes_into_a_store(
    kfp: Path, gateway: GatewayProcess, bucket: Bucket, tmp_path: Path
):
    """Documents are searchable, a broken one fails alone, and another run does what changed."""
    bucket.put("manuals/boat.md", b"# Boats\n\nThe boat is blue.\n\n## Oars\n\nThe oars are long.")
    bucket.put("manuals/lamp.txt", b"The lamp is yellow.")
    bucket.put("manuals/deep/door.txt", b"The door is heavy.")
    bucket.put("manuals/broken.pdf", b"%PDF-1.7\nthis is no document")
    bucket.put("other/secret.txt", b"The safe is open.")

    first = await run(kfp, gateway, bucket, tmp_path / "1", attributes={"team": "harbour"})
    output = first.stdout + first.stderr
    assert first.returncode == 1, output
    assert "Inner task failed" in output
    [report] = (tmp_path / "1").rglob("summary")
    said = report.read_text()
    assert "- 3 brought in" in said
    assert "- 1 failed" in said
    assert "| manuals/broken.pdf | " in said
    store, files = await stored(gateway, bucket.name)
    root = f"s3://{bucket.name}/manuals/"
    assert sorted(files) == [root + one for one in ("boat.md", "deep/door.txt", "lamp.txt")]
    boat = files[root + "boat.md"]
    assert boat["status"] == "completed"
    assert boat["attributes"]["team"] == "harbour"
    assert boat["attributes"]["chunks"] >= 1
    [hit] = [one for one in await found(gateway, store, "oars") if one["file_id"] == boat["id"]]
    assert hit["filename"] == "boat.md"

    bucket.put("manuals/lamp.txt", b"The lamp is green now.")
    bucket.client.remove_object(bucket.name, "manuals/broken.pdf")
    second = await run(kfp, gateway, bucket, tmp_path / "2", attributes={"team": "harbour"})
    assert second.returncode == 0, second.stdout + second.stderr
    [report] = (tmp_path / "2").rglob("summary")
    assert "- 1 brought in\n- 2 unchanged\n" in report.read_text()
    _, again = await stored(gateway, bucket.name)
    assert sorted(again) == sorted(files)
    assert again[root + "boat.md"]["id"] == boat["id"]
    assert again[root + "lamp.txt"]["id"] != files[root + "lamp.txt"]["id"]
    texts = [one["content"][0]["text"] for one in await found(gateway, store, "lamp")]
    assert texts == ["The lamp is green now."]


async def test_a_run_is_started_as_the_sdk_does_it(kfp: Path):
    """KFP's SDK understands the stand-in for its server, and sends what `understudy` sends."""
    script = SCRIPT.with_name("sdk_run.py")
    arguments = {"gateway": "http://understudy:8321/v1", "bucket": "b", "store": "s"}
    with PipelinesApi([("RUNNING", {"plan": "RUNNING"})]) as api:
        command = (kfp, script, api.url, PIPELINE, json.dumps(arguments))
        done = await call(*command, env={**os.environ, "NO_PROXY": "127.0.0.1"})
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said == {"state": "RUNNING", "tasks": [["plan", "RUNNING"]]}
        server = KubeflowServer(KubeflowSettings(url=api.url))
        await server.start("ours", arguments, experiment="docs", parallelism=4)
        await server.aclose()
        theirs, ours = api.started
    assert set(ours) <= set(theirs)
    for name in ("experiment_id", "runtime_config"):
        assert ours[name] == theirs[name]
    assert set(ours["pipeline_spec"]) == set(theirs["pipeline_spec"])
    for name in ("components", "pipelineInfo", "root", "schemaVersion"):
        assert (
            ours["pipeline_spec"]["pipeline_spec"][name]
            == (theirs["pipeline_spec"]["pipeline_spec"][name])
        )
