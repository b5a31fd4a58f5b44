"""LlamaStack's shapes of shields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

__all__ = [
    "RegisterShield",
    "RunShield",
    "RunShieldResponse",
    "SafetyViolation",
    "ShieldList",
    "ShieldObject",
]

MOST_MESSAGES = 10_000


class ShieldObject(Struct, frozen=True, kw_only=True):
    identifier: str
    provider_resource_id: str
    """The guard behind it."""
    provider_id: str
    type: Literal["shield"] = "shield"
    params: dict[str, Any] = field(default_factory=dict)


class ShieldList(Struct, frozen=True):
    data: list[ShieldObject]


class RegisterShield(Struct, frozen=True, kw_only=True):
    """``provider_shield_id`` names the guard; it is ``shield_id`` when left out."""

    shield_id: str
    provider_shield_id: str | None = None
    provider_id: str | None = None
    params: dict[str, Any] | None = None


class RunShield(Struct, frozen=True, kw_only=True):
    """``messages`` are chat messages, of which the last one is judged."""

    shield_id: str
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_MESSAGES)]
    params: dict[str, Any] | None = None


class SafetyViolation(Struct, frozen=True, kw_only=True):
    violation_level: Literal["info", "warn", "error"]
    user_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class RunShieldResponse(Struct, frozen=True):
    violation: SafetyViolation | None = None
