"""The store of limits, where it is one of its own: the database has its own look."""

from __future__ import annotations

from gateway.check.finding import Outcome, fine, shown
from gateway.check.probe import Probe, closed_after
from gateway.check.systems import Systems

__all__ = ["probes"]

_HOLDER = "understudy-check"


def probes(systems: Systems) -> list[Probe]:
    store = systems.settings.limits.store
    if store in {"memory", "database"}:
        return []
    return [Probe(system="limits", address=shown(store), look=lambda: _look(systems))]


async def _look(systems: Systems) -> list[Outcome]:
    """Hold no places, which runs the same script as holding some does."""
    async with closed_after(systems.counters()) as store:
        await store.hold(_HOLDER, [], 1.0)
    return [fine("counts for all replicas")]
