"""Where LlamaStack and OpenAI differ for a client, and which of the two ways is taken.

OpenAI's way is the default; ``server.profile: llamastack`` gives LlamaStack's, so that a team can
rehearse the switch. Every difference is a field here and a row in ``docs/profiles.md``.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.errors import GatewayError, InvalidRequest, NotFound

__all__ = ["Profile", "profile_of"]


class Profile(Struct, frozen=True, kw_only=True):
    """One way of being compatible."""

    prefixed_model_ids: bool
    """Models are listed as ``provider/model``. Both forms are understood in any case."""
    owned_by: str | None
    """A model's ``owned_by``; ``None`` for the name of what serves it."""
    unknown_provider: type[GatewayError]
    """The error for ``GET /v1/providers/{id}`` with an id that isn't there."""


_OPENAI = Profile(prefixed_model_ids=False, owned_by=None, unknown_provider=NotFound)
_LLAMASTACK = Profile(
    prefixed_model_ids=True, owned_by="llama_stack", unknown_provider=InvalidRequest
)


def profile_of(name: Literal["openai", "llamastack"]) -> Profile:
    return _LLAMASTACK if name == "llamastack" else _OPENAI
