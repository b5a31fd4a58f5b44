"""Builds the clients' environments beside each other and runs each client's script once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from tests.real.clients.environments import Builds, Client
from tests.real.conftest import RealVllm
from tests.support.gateway import GatewayProcess

QUESTION = "What is the capital of France?"

Said = Callable[[Client], dict[str, Any]]


@pytest.fixture(scope="session")
def builds(request: pytest.FixtureRequest) -> Iterator[Builds]:
    """The environments that this run's tests need, being built two at a time."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    clients = {call.params["client"] for call in calls if call and "client" in call.params}
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(line, flush=True)

    building = Builds(sorted(clients, key=lambda client: client.name), say)
    yield building
    building.close()


@pytest.fixture(scope="session")
def said(
    builds: Builds, gateway: GatewayProcess, vllm_chat: RealVllm, vllm_embeddings: RealVllm
) -> Said:
    """What a client's script said about the gateway; the script runs once a session."""
    answers: dict[Client, dict[str, Any]] = {}

    def said_by(client: Client) -> dict[str, Any]:
        if client not in answers:
            answers[client] = builds.wait_for(client).run(
                BASE_URL=gateway.base_url,
                LEGACY_URL=f"{gateway.root_url}/v1/openai/v1",
                CHAT_MODEL=vllm_chat.model,
                EMBEDDING_MODEL=vllm_embeddings.model,
                QUESTION=QUESTION,
            )
        return answers[client]

    return said_by
