"""Which of a model's backends gets the next request."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Sequence

from gateway.routing.affinity import rank
from gateway.routing.catalog import Backend, Model
from gateway.settings import RoutingSettings

__all__ = ["choose"]


def choose(
    model: Model, tried: Collection[Backend], key: int | None, *, now: float | None = None
) -> Backend | None:
    """A backend that hasn't been tried; ``None`` where there is none worth it.

    The lowest priority that has one which is up decides. Where none is up at all, it is the one
    that is back the soonest: what it says is truer than a guess of ours, and it may have come back
    a moment ago. Nobody is sent to one that is known to hang.
    """
    if now is None:
        now = time.monotonic()
    lowest: int | None = None
    available: list[Backend] = []
    for backend in model.backends:
        if lowest is not None and backend.priority > lowest:
            continue
        if backend.breaker.allows(now) and not backend.load.down and backend not in tried:
            if lowest is None or backend.priority < lowest:
                lowest = backend.priority
                available.clear()
            available.append(backend)
    return _pick(available, key, model.routing) or _last_resort(model, tried, key, now)


def _pick(
    available: Sequence[Backend], key: int | None, routing: RoutingSettings
) -> Backend | None:
    if len(available) < 2:
        return available[0] if available else None
    return _own(available, key, routing) if key is not None else _drawn(available, routing)


def _own(available: Sequence[Backend], key: int, routing: RoutingSettings) -> Backend:
    """The key's own backend, or the next in its order where that one has more than its share.

    One always has less, since the shares add up to more than there is.
    """
    ranks = [(rank(key, one.seed, one.weight), one) for one in available]
    own = max(ranks, key=_first)[1]
    if own.load.estimate < routing.free_load:
        return own
    loads = sum(one.load.estimate for one in available) + 1
    weights = sum(one.weight for one in available)
    ranks.sort(key=_first, reverse=True)
    for _, backend in ranks:
        share = math.ceil(routing.load_bound * loads * backend.weight / weights)
        if backend.load.estimate < max(share, routing.free_load):
            return backend
    return own


def _drawn(available: Sequence[Backend], routing: RoutingSettings) -> Backend:
    """By weight and luck; of two that are drawn so, the less busy for its weight.

    Two rather than all, so that replicas that know the same old numbers don't all send their
    requests to the same server.
    """
    first, second = _two(available)
    if (
        routing.strategy == "least_loaded"
        and second.load.estimate * first.weight < first.load.estimate * second.weight
    ):
        return second
    return first


def _two(available: Sequence[Backend]) -> Sequence[Backend]:
    weight = available[0].weight
    if any(one.weight != weight for one in available):
        return sorted(available, key=_luck, reverse=True)[:2]
    count = len(available)
    first = int(random.random() * count)  # noqa: S311  (no secret)
    second = int(random.random() * (count - 1))  # noqa: S311
    return available[first], available[second + (second >= first)]


def _last_resort(
    model: Model, tried: Collection[Backend], key: int | None, now: float
) -> Backend | None:
    left = [one for one in model.backends if one not in tried and one.breaker.reason != "slow"]
    if not left:
        return None
    # Those that only can't be asked for their models may be too busy for that: none of them is to
    # get everything.
    down = [one for one in left if one.breaker.allows(now)]
    if down:
        lowest = min(one.priority for one in down)
        return _pick([one for one in down if one.priority == lowest], key, model.routing)
    return min(
        left,
        key=lambda one: (not one.breaker.is_aside(now), one.breaker.back_at, one.priority),
    )


def _first(ranked: tuple[float, Backend]) -> float:
    return ranked[0]


def _luck(backend: Backend) -> float:
    return math.pow(random.random(), 1 / backend.weight)  # noqa: S311  (no secret)
