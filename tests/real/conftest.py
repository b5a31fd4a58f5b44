"""Real servers for the tests in this folder: two vLLMs, and the gateway in front of them."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.real.vllm.server import Kind, VllmServer
from tests.support.gateway import GatewayProcess
from tests.support.otlp import Collector

FIXTURES: dict[str, Kind] = {"vllm_chat": "chat", "vllm_embeddings": "embeddings"}
RUNNING_ALREADY: dict[Kind, str] = {
    "chat": "UNDERSTUDY_VLLM_CHAT_URL",
    "embeddings": "UNDERSTUDY_VLLM_EMBEDDINGS_URL",
}


OTLP_BY_HTTP = {
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}

START_SECONDS = 900  # of the first test: two servers start, and environments may be built


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real vLLM, and give it the time that a start takes."""
    for item in items:
        if set(FIXTURES) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(START_SECONDS))


@dataclass(frozen=True)
class RealVllm:
    """A vLLM that answers. ``server`` is None when it was running before the tests."""

    root_url: str
    model: str
    server: VllmServer | None = None

    @property
    def url(self) -> str:
        """The address as a gateway's configuration has it."""
        return f"{self.root_url}/v1"


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Gets the spans of the gateway and of the chat server."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def _vllms(request: pytest.FixtureRequest, collector: Collector) -> Iterator[dict[Kind, RealVllm]]:
    """The servers that this run's tests ask for, started beside each other."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    kinds = [kind for name, kind in FIXTURES.items() if name in asked]
    with ExitStack() as stack:
        found = {kind: _running_already(kind) for kind in kinds}
        own = {
            kind: VllmServer(
                kind, extra_args=_tracing(collector) if kind == "chat" else (), env=OTLP_BY_HTTP
            )
            for kind in kinds
            if found[kind] is None
        }
        for server in own.values():
            stack.enter_context(server)
        for kind, server in own.items():
            server.wait_ready()
            found[kind] = RealVllm(server.url, server.model, server)
        yield {kind: vllm for kind, vllm in found.items() if vllm is not None}


@pytest.fixture(scope="session")
def vllm_chat(_vllms: dict[Kind, RealVllm]) -> RealVllm:
    """A real vLLM with a small chat model."""
    return _vllms["chat"]


@pytest.fixture(scope="session")
def vllm_embeddings(_vllms: dict[Kind, RealVllm]) -> RealVllm:
    """A real vLLM with a small embedding model."""
    return _vllms["embeddings"]


@pytest.fixture(scope="session")
def gateway(
    vllm_chat: RealVllm, vllm_embeddings: RealVllm, collector: Collector
) -> Iterator[GatewayProcess]:
    """The gateway in front of both, with their models discovered and every call traced."""
    config = {
        "discover": [vllm_chat.url, vllm_embeddings.url],
        "responses": {"max_summary_tokens": 60},  # so small a model goes on and on
    }
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    models = [vllm_chat.model, vllm_embeddings.model]
    with GatewayProcess(config, models=models, env=env) as process:
        yield process


def _tracing(collector: Collector) -> list[str]:
    """vLLM's switch for its own spans."""
    return ["--otlp-traces-endpoint", f"{collector.url}/v1/traces"]


def _running_already(kind: Kind) -> RealVllm | None:
    address = os.environ.get(RUNNING_ALREADY[kind], "").rstrip("/").removesuffix("/v1")
    if not address:
        return None
    with urllib.request.urlopen(f"{address}/v1/models", timeout=10) as answer:
        return RealVllm(address, json.load(answer)["data"][0]["id"])
