"""What answers say of limits, in OpenAI's words."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.limits.counters import Allowance

__all__ = ["duration", "limit_headers"]

_MINUTE, _HOUR = 60, 3600
_REQUESTS, _TOKENS = (
    tuple(b"x-ratelimit-%b-%b" % (what, of) for what in (b"limit", b"remaining", b"reset"))
    for of in (b"requests", b"tokens")
)


def limit_headers(
    requests: Sequence[Allowance], tokens: Sequence[Allowance]
) -> list[tuple[bytes, bytes]]:
    """Of each the one with the least left: it is what the next request meets."""
    now = time.monotonic()
    headers: list[tuple[bytes, bytes]] = []
    for names, allowances in ((_REQUESTS, requests), (_TOKENS, tokens)):
        if not allowances:
            continue
        least, remaining = allowances[0], allowances[0].remaining(now)
        for other in allowances[1:]:
            if (left := other.remaining(now)) < remaining:
                least, remaining = other, left
        until_full = duration(least.seconds_until(least.limit, remaining))
        headers += (
            (names[0], least.limit_text),
            (names[1], b"%d" % max(0.0, remaining)),
            (names[2], until_full.encode()),
        )
    return headers


def duration(seconds: float) -> str:
    """``12ms``, ``1s``, ``8.64s``, ``6m0s``, ``1h0m0s``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds > 0 else "0s"
    if seconds < _MINUTE:
        return f"{round(seconds, 3):g}s"
    whole = round(seconds)
    hours, minutes, rest = whole // _HOUR, whole % _HOUR // _MINUTE, whole % _MINUTE
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
