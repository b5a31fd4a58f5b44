"""The gateway's account of itself."""

from __future__ import annotations

from gateway.errors import UpstreamUnavailable
from gateway.management.schemas import Provider, ProviderHealth, Readiness
from gateway.profile import Profile
from gateway.routing.discovery import Discovery, ServerState
from gateway.state import State


class ManagementService:
    def __init__(self, discovery: Discovery, profile: Profile, state: State) -> None:
        self._discovery = discovery
        self._profile = profile
        self._state = state

    async def readiness(self) -> Readiness:
        """Raises ``UpstreamUnavailable`` while the gateway's own state can't be reached.

        Neither a model server nor Milvus makes it unready: no other replica would do better.
        """
        if not self._state.ready or not await self._state.database.answers():
            raise UpstreamUnavailable(
                "Not ready: the database or the object store can't be reached.", code="not_ready"
            )
        states = self._discovery.servers
        up = sum(state.up is True for state in states)
        return Readiness(status="ready", servers={"up": up, "total": len(states)})

    def providers(self) -> list[Provider]:
        return [_provider(state) for state in self._discovery.servers]

    def provider(self, provider_id: str) -> Provider:
        """Raises the error of the profile for an unknown one."""
        for state in self._discovery.servers:
            if state.provider_id == provider_id:
                return _provider(state)
        raise self._profile.unknown_provider(
            f"Provider '{provider_id}' not found.", param="provider_id"
        )


def _provider(state: ServerState) -> Provider:
    return Provider(
        api="inference",
        provider_id=state.provider_id,
        provider_type=f"remote::{state.server.provider}",
        config={"url": state.server.name},
        health=ProviderHealth("OK" if state.up else "Error", state.message),
    )
