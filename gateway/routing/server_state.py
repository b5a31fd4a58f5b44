"""What is known of a server that runs models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct, field

from gateway.ports import ModelServer, ServedModel, ServerKind
from gateway.routing.load import Load
from gateway.settings import BackendSettings

__all__ = ["ServerState", "identity_of"]


class ServerState(Struct, kw_only=True, eq=False):
    """What is known of one server. ``up`` is ``None`` until it was asked once."""

    server: ModelServer
    provider_id: str
    discovered: bool
    """Whether its models are offered under their own names, or only where ``models`` says."""
    load: Load = field(default_factory=Load)
    up: bool | None = None
    message: str = "not asked yet"
    models: Sequence[ServedModel] = ()
    kind: ServerKind | None = None
    dimensions: dict[str, int] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)


def identity_of(backend: BackendSettings) -> BackendSettings:
    """What makes two backends the same server: all but what concerns one model there."""
    return BackendSettings(
        url=backend.url.rstrip("/").removesuffix("/v1"),
        address=backend.address,
        api_key=backend.api_key,
        api_key_file=backend.api_key_file,
        ca_file=backend.ca_file,
        client_cert=backend.client_cert,
        client_key=backend.client_key,
        forward_headers=backend.forward_headers,
        timeouts=backend.timeouts,
    )
