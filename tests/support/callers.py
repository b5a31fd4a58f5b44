"""A gateway that believes who its callers say they are, for tests of what depends on it.

async with TrustingGateway(discover=[upstream.url], limits={…}) as gateway:
    client = gateway.caller(project="red", key="key_1")
"""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI

from gateway.identity.principal import Principal
from tests.support.inprocess import InProcessGateway

__all__ = ["TrustingGateway"]

PREFIX = b"x-test-"


class TrustingGateway(InProcessGateway):
    """It closes the clients that it gave out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._clients: list[AsyncOpenAI] = []

    def public(self) -> Any:
        app = super().public()

        async def believing(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope.setdefault("state", {})["principal"] = _principal(scope["headers"])
            await app(scope, receive, send)

        return believing

    def caller(
        self,
        project: str = "default",
        *,
        key: str | None = None,
        subject: str | None = None,
        scopes: str | None = None,
    ) -> AsyncOpenAI:
        """Who tries nothing twice. `scopes` are separated by blanks; without, it may do all."""
        given = {"project": project, "key": key, "subject": subject, "scopes": scopes}
        headers = {f"x-test-{name}": value for name, value in given.items() if value is not None}
        client = AsyncOpenAI(
            base_url=self.base_url, api_key="none", max_retries=0, default_headers=headers
        )
        self._clients.append(client)
        return client

    async def __aexit__(self, *failure: object) -> None:
        for client in self._clients:
            await client.close()
        await super().__aexit__(*failure)


def _principal(headers: Any) -> Principal:
    given = {
        name.removeprefix(PREFIX).decode(): value.decode()
        for name, value in headers
        if name.startswith(PREFIX)
    }
    scopes = given.get("scopes")
    return Principal(
        project=given.get("project", "default"),
        key_id=given.get("key"),
        subject=given.get("subject"),
        scopes=None if scopes is None else frozenset(scopes.split()),
    )
