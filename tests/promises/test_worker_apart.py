"""`understudy worker` does the work of servers that leave it to others."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import HOST, GatewayProcess, free_port
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio


async def test_a_worker_of_its_own_ingests_and_removes(embedding_upstream: FakeVllm):
    """The server only answers; the worker has probes where a port is given, and ends in order."""
    config = {
        "discover": [embedding_upstream.url],
        "ingestion": {"embedded_worker": False, "attach_wait_seconds": 0},
    }
    async with (
        GatewayProcess(config, models=["fake-embedding"]) as gateway,
        httpx.AsyncClient(base_url=gateway.base_url, timeout=60) as client,
    ):
        store = (await client.post("/vector_stores", json={"name": "x"})).json()["id"]
        upload = {"file": ("lamp.txt", b"The lamp is lit.")}
        answer = await client.post("/files", files=upload, data={"purpose": "assistants"})
        file = answer.json()["id"]
        await client.post(f"/vector_stores/{store}/files", json={"file_id": file})
        await asyncio.sleep(1)
        assert await _status(client, store, file) == "in_progress"
        port = free_port()
        worker = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("understudy")),
            "worker",
            "--config",
            str(gateway.folder / "understudy.yaml"),
            cwd=gateway.folder,
            env={"PATH": "/usr/bin:/bin", "UNDERSTUDY_SERVER__MANAGEMENT_PORT": str(port)},
        )
        try:
            async with asyncio.timeout(60):
                while await _status(client, store, file) == "in_progress":
                    await asyncio.sleep(0.1)
            assert await _status(client, store, file) == "completed"
            for probe in ("livez", "readyz", "metrics"):
                answer = await client.get(f"http://{HOST}:{port}/{probe}")
                assert answer.status_code == 200
            assert "understudy_ingestion_duration_seconds_count" in answer.text
            query = {"query": "lamp"}
            answer = await client.post(f"/vector_stores/{store}/search", json=query)
            assert [one["file_id"] for one in answer.json()["data"]] == [file]
            await client.delete(f"/files/{file}")
            objects = gateway.folder / "understudy-data" / "objects"
            async with asyncio.timeout(30):
                while any(file in str(one) for one in objects.rglob("*") if one.is_file()):
                    await asyncio.sleep(0.1)
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(worker.wait(), 20) == 0
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


async def _status(client: httpx.AsyncClient, store: str, file: str) -> str:
    answer = await client.get(f"/vector_stores/{store}/files/{file}")
    return str(answer.json()["status"])
