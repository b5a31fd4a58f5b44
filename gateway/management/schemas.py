"""LlamaStack's shapes for inspecting a server."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class Health(Struct, frozen=True):
    status: Literal["OK", "Error"]


class Readiness(Struct, frozen=True):
    """``servers`` counts the model servers that answer. Neither they nor a database that has gone
    away make the gateway unready.
    """

    status: Literal["ready"]
    servers: dict[str, int]
    database: Literal["up", "down"]


class Version(Struct, frozen=True):
    version: str


class ProviderHealth(Struct, frozen=True):
    status: Literal["OK", "Error"]
    message: str


class Provider(Struct, frozen=True):
    api: str
    provider_id: str
    provider_type: str
    config: dict[str, Any]
    health: ProviderHealth


class ProviderList(Struct, frozen=True):
    data: list[Provider]


class Route(Struct, frozen=True):
    route: str
    method: str
    provider_types: list[str]


class RouteList(Struct, frozen=True):
    data: list[Route]
