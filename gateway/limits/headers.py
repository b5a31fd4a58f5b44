"""What answers say of limits, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.limits.counters import Allowance

__all__ = ["duration", "limit_headers"]

_MINUTE, _HOUR = 60, 3600


def limit_headers(
    requests: Sequence[Allowance], tokens: Sequence[Allowance]
) -> list[tuple[bytes, bytes]]:
    """Of each the one with the least left: it is what the next request meets."""
    headers: list[tuple[bytes, bytes]] = []
    for name, allowances in ((b"requests", requests), (b"tokens", tokens)):
        if not allowances:
            continue
        least = min(allowances, key=Allowance.remaining)
        remaining = max(0, int(least.remaining()))
        until_full = duration(least.seconds_until(least.limit))
        headers += [
            (b"x-ratelimit-limit-" + name, b"%d" % least.limit),
            (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
            (b"x-ratelimit-reset-" + name, until_full.encode()),
        ]
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
