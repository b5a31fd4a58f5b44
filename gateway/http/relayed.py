"""Relays as Litestar handlers: for its router, its error handling and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from gateway.relay.relay import Relay

RELAY = "relay"
"""The key of a handler's ``opt`` under which its relay is found."""
ANSWERS_WITH = "answers_with"


def relayed(
    paths: Sequence[str],
    relay: Relay,
    *,
    name: str,
    summary: str,
    tag: str,
    answers_with: str,
) -> HTTPRouteHandler:
    """A handler for POST on these paths; ``name`` is OpenAI's ``operationId``."""

    @post(
        list(paths),
        status_code=200,
        summary=summary,
        tags=[tag],
        opt={RELAY: relay, ANSWERS_WITH: answers_with},
        name=name,
    )
    async def handler() -> ASGIApp:
        return cast("ASGIApp", relay)  # Litestar's own type of the same thing

    return handler


def relays_by_path(handlers: Iterable[HTTPRouteHandler]) -> dict[str, Relay]:
    """The paths that the edge may answer without asking Litestar."""
    return {
        path: handler.opt[RELAY]
        for handler in handlers
        if RELAY in handler.opt
        for path in handler.paths
    }
