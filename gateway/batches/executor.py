"""Doing what one line of a batch asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from gateway.chat.service import CHAT
from gateway.completions.service import COMPLETION
from gateway.embeddings.service import EMBEDDINGS
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient
from gateway.relay.operation import Operation

__all__ = ["CreateResponse", "LineExecutor", "ModelExecutor"]

CreateResponse = Callable[[Principal, Activity, dict[str, Any]], Awaitable[dict[str, Any]]]
"""The answer of ``POST /v1/responses`` to this body, which asks for no stream."""

_RESPONSES = "/v1/responses"
_OPERATIONS: dict[str, Operation[Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/embeddings": EMBEDDINGS,
}
_ENCODINGS = (None, "float", "base64")


class LineExecutor(Protocol):
    """What runs the lines of batches."""

    @property
    def endpoints(self) -> Mapping[str, tuple[str, ...]]:
        """The endpoints that lines may be for, and the kinds of models that each takes."""

    async def run(
        self, principal: Principal, activity: Activity, endpoint: str, body: Mapping[str, Raw]
    ) -> bytes:
        """The JSON that the endpoint would answer with. Raises ``GatewayError`` for anything else.

        Cancelling it stops the work.
        """


class ModelExecutor:
    """Asks the models themselves, and for responses whoever makes them."""

    def __init__(self, client: ModelClient, create_response: CreateResponse | None = None) -> None:
        self._client = client
        self._create_response = create_response
        self.endpoints: Mapping[str, tuple[str, ...]] = {
            endpoint: operation.kinds for endpoint, operation in _OPERATIONS.items()
        }
        if create_response is not None:
            self.endpoints = {**self.endpoints, _RESPONSES: CHAT.kinds}

    async def run(
        self, principal: Principal, activity: Activity, endpoint: str, body: Mapping[str, Raw]
    ) -> bytes:
        if endpoint == _RESPONSES and self._create_response is not None:
            asked = msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Any])
            return msgspec.json.encode(await self._create_response(principal, activity, asked))
        if endpoint == EMBEDDINGS.path:
            _check_encoding(body)
        request = {**body, "model": msgspec.json.decode(body["model"], type=str)}
        return await self._client.ask(_OPERATIONS[endpoint], activity, request, as_relayed=True)


def _check_encoding(body: Mapping[str, Raw]) -> None:
    """Other encodings are vLLM's own, and not JSON."""
    given = body.get("encoding_format")
    if given is not None and msgspec.json.decode(given) not in _ENCODINGS:
        raise InvalidRequest(
            "Invalid value for 'encoding_format': in a batch it is 'float' or 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
