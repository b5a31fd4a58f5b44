"""How many tokens a request takes, before and without being told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.errors import ClientDisconnected, ShuttingDown
from gateway.observability.call import ModelCall

if TYPE_CHECKING:
    from gateway.http.asgi import Scope

__all__ = ["declared_input", "estimated_input", "needed_tokens", "used_tokens"]

_BYTES_A_TOKEN = 4
_WITH_MEDIA = 1024
"""For a request with images or sounds in it, whose bytes say nothing of its tokens."""

_CUT_OFF = frozenset({ClientDisconnected.default_code, ShuttingDown.default_code, "cancelled"})


def estimated_input(body: bytes) -> int:
    """Of a request with this body."""
    if b";base64," in body:
        return _WITH_MEDIA
    return len(body) // _BYTES_A_TOKEN + 1


def declared_input(scope: Scope) -> int:
    """Of a request with a body that is read elsewhere."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value) // _BYTES_A_TOKEN + 1
    return 1


def needed_tokens(request: Any, body: bytes) -> int:
    """What is set aside for a request: as OpenAI does, the larger of its input and the most that
    it wants as output.
    """
    wanted = getattr(request, "max_completion_tokens", None) or getattr(request, "max_tokens", None)
    return max(estimated_input(body), wanted or 0)


def used_tokens(call: ModelCall | None) -> tuple[int, int, bool]:
    """Input and output of a call, and whether they are an estimate.

    A model server tells them with the end of its answer. Where that never came, each event that
    did was a token, and the input was read before the first of them.
    """
    if call is None:
        return 0, 0, False
    if call.usage is not None:
        return call.usage.input or 0, call.usage.output or 0, False
    if call.chunks or call.error_type in _CUT_OFF:
        return estimated_input(call.body), call.chunks, True
    return 0, 0, False
