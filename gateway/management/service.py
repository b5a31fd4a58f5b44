"""The gateway's account of itself."""

from __future__ import annotations

from gateway.errors import NotFound
from gateway.management.schemas import Provider, ProviderHealth, Readiness
from gateway.routing.discovery import Discovery, ServerState


class ManagementService:
    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    def readiness(self) -> Readiness:
        states = self._discovery.servers
        up = sum(state.up is True for state in states)
        return Readiness(status="ready", servers={"up": up, "total": len(states)})

    def providers(self) -> list[Provider]:
        return [_provider(state) for state in self._discovery.servers]

    def provider(self, provider_id: str) -> Provider:
        """Raises ``NotFound``."""
        for state in self._discovery.servers:
            if state.provider_id == provider_id:
                return _provider(state)
        raise NotFound(f"Provider '{provider_id}' not found.", param="provider_id")


def _provider(state: ServerState) -> Provider:
    return Provider(
        api="inference",
        provider_id=state.provider_id,
        provider_type=f"remote::{state.server.provider}",
        config={"url": state.server.name},
        health=ProviderHealth("OK" if state.up else "Error", state.message),
    )
