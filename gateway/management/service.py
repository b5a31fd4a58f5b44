"""The gateway's account of itself."""

from __future__ import annotations

from gateway.errors import ShuttingDown, UpstreamUnavailable
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
        """Raises ``UpstreamUnavailable`` until database and object store have been made ready, and
        ``ShuttingDown`` once the process is about to end.

        Between them nothing outside makes it unready: no other replica would do better, and this
        one still relays to the model servers.
        """
        if self._state.draining:
            raise ShuttingDown("This process ends and gives its requests to others.")
        if not self._state.ready:
            raise UpstreamUnavailable(
                "Not ready yet: the database or the object store has not been reached.",
                code="not_ready",
            )
        states = self._discovery.servers
        up = sum(state.up is True for state in states)
        reached = await self._state.database.answers()
        return Readiness(
            status="ready",
            servers={"up": up, "total": len(states)},
            database="up" if reached else "down",
        )

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
