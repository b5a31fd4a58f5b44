"""Nothing acknowledged is lost, nothing is shown to another project, and only requests fail in the
middle of which a replica or a model server died. `SOAK_SECONDS` says for how long."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import AsyncOpenAI

from tests.soak.ledger import Ledger, check
from tests.soak.load import Actors, Log
from tests.soak.report import MOST_MIB_PER_MINUTE, excuse, show, slope
from tests.soak.world import Replica, World, backend, worker
from tests.support.balancer import Balancer

SECONDS = float(os.environ.get("SOAK_SECONDS", "15"))
KILL_EVERY = float(os.environ.get("SOAK_KILL_EVERY", "6"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
SHORT_SECONDS = 60
"""Below this there is one death, of a replica."""

REPLICAS, WORKERS, BACKENDS = 3, 2, 2
PROJECTS = ("lighthouse", "harbour")

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(2 * SECONDS + 900)]


@pytest.fixture
def config(postgres_url: str, s3, request: pytest.FixtureRequest, tmp_path: Path):
    try:
        milvus = request.getfixturevalue("milvus_server")
    except pytest.skip.Exception:  # none can be run here
        milvus = str(tmp_path / "milvus")
    return {
        "database": {"url": postgres_url},
        "objects": s3.settings(bucket="soak"),
        "vectors": {"uri": milvus, "layout": "shared"},
        "identity": {"mode": "api_keys"},
        "ingestion": {"lease_seconds": 6, "attach_wait_seconds": 0, "embedded_worker": False},
        "discover_interval_seconds": 2,
    }


@pytest.fixture
async def world(config: dict[str, Any], tmp_path: Path) -> AsyncIterator[World]:
    backends = {kind: [backend(kind, n) for n in range(BACKENDS)] for kind in ("chat", "embedding")}
    config["models"] = [
        {"id": f"fake-{kind}", "kind": kind, "backends": [{"url": url} for _, url in members]}
        for kind, members in backends.items()
    ]
    replicas = [Replica(f"replica-{n}", config, []) for n in range(REPLICAS)]
    workers = [worker(n, config, tmp_path) for n in range(WORKERS)]
    replicas[0].spared = workers[0].spared = True
    models = [member for members in backends.values() for member, _ in members]
    made = World([*replicas, *workers, *models])
    try:
        await made.start()
        yield made
    finally:
        await made.end()


async def keys_of(config: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """An API key for each project."""
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump(config))
    keys = {}
    for project in PROJECTS:
        made = await asyncio.to_thread(
            subprocess.run,
            [
                str(Path(sys.executable).with_name("understudy")),
                *("keys", "create", "--project", project, "--json", "--config", str(file)),
            ],
            capture_output=True,
            check=True,
        )
        keys[project] = json.loads(made.stdout)["secret"]
    return keys


async def test_soak(world: World, config: dict[str, Any], tmp_path: Path, capsys):
    """Two projects, a few actors each; deaths; and then a look at all that was acknowledged."""
    log = Log()
    ledgers = {project: Ledger(project) for project in PROJECTS}
    keys = await keys_of(config, tmp_path)
    over = asyncio.Event()
    chance = random.Random(SEED)
    ports = [one.gateway.port for one in world.of("replica") if isinstance(one, Replica)]
    async with Balancer(ports) as balancer:
        await balancer.until_ready(REPLICAS)
        clients = {
            project: AsyncOpenAI(
                base_url=balancer.base_url, api_key=keys[project], max_retries=0, timeout=60
            )
            for project in PROJECTS
        }
        watching = asyncio.create_task(world.watch_memory())
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, project in enumerate(PROJECTS):
                actors = Actors(clients[project], ledgers[project], log, SEED + number)
                for act in actors.all():
                    group.create_task(actors.run(act, over))
            if SECONDS < SHORT_SECONDS:
                await asyncio.sleep(SECONDS / 4)
                await world.strike(world.of("replica")[1], 0.5)
                await asyncio.sleep(max(0, began + SECONDS - time.monotonic()))
            else:
                raging = asyncio.create_task(world.rage(KILL_EVERY, chance))
                await asyncio.wait([raging], timeout=SECONDS)
                assert raging.cancel(), raging.exception()
                await asyncio.wait([raging])
            over.set()
        seconds = time.monotonic() - began
        watching.cancel()
        await balancer.until_ready(REPLICAS)
        wrong = [*log.wrong]
        for project, ledger in ledgers.items():
            others = [one for one in ledgers.values() if one is not ledger]
            wrong += await check(ledger, clients[project], others)
        for client in clients.values():
            await client.close()
    with capsys.disabled():
        print(f"\n{show(world, log, [*ledgers.values()], seconds)}\nseed       {SEED}")
    assert wrong == [], wrong[:20]
    unexcused = [one for one in log.failures if not excuse(one, world.kills)]
    assert unexcused == [], (unexcused[:10], world.kills)
    assert all(log.done[what] for what in ("chat", "stream", "upload", "attach", "batch"))
    for member in world.members:
        rise = slope(member.memory) if member.spared else None
        assert rise is None or rise < MOST_MIB_PER_MINUTE, (member.name, rise)
