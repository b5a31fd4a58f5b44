"""What a soak came to, for people."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from tests.soak.ledger import Ledger
from tests.soak.load import Failure, Log
from tests.soak.world import Kill, Member, World

DETECTED_SECONDS = 1.0
"""How long a balancer may send requests to a replica that is gone."""

ASKING = frozenset({"chat", "stream", "embeddings", "response", "search"})
"""Requests in the middle of which a model's server answers."""

WARM_SECONDS = 60.0
MOST_MIB_PER_MINUTE = 4.0


def excuse(failure: Failure, kills: Sequence[Kill]) -> Kill | None:
    """The death in the middle of the request, if there was one: of a replica, or of a model server
    where it is one that asks a model. Nothing is asked of workers.
    """
    for kill in kills:
        late = DETECTED_SECONDS if kill.kind == "replica" else 0.0
        asked = kill.kind == "replica" or (kill.kind == "backend" and failure.what in ASKING)
        if asked and failure.began <= kill.at + late and failure.ended >= kill.at:
            return kill
    return None


def slope(samples: Sequence[tuple[float, float]]) -> float | None:
    """MiB a minute after the warm-up, or ``None`` where there is too little to say."""
    warm = [(at, mib) for at, mib in samples if at >= samples[0][0] + WARM_SECONDS]
    if len(warm) < WARM_SECONDS:
        return None
    return statistics.linear_regression(*zip(*warm, strict=True)).slope * 60


def show(world: World, log: Log, ledgers: Sequence[Ledger], seconds: float) -> str:
    """The report's text."""
    lines = [f"Soak of {seconds:.0f} s", "", f"{'requests':14}{'done':>8}{'p50':>10}{'p99':>10}"]
    for what, count in sorted(log.done.items()):
        taken = sorted(log.seconds[what])
        p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
        lines.append(f"{what:14}{count:8}{p50 * 1000:8.0f}ms{p99 * 1000:8.0f}ms")
    total = sum(log.done.values()) + len(log.failures)
    excused = [one for one in log.failures if excuse(one, world.kills)]
    kinds = Counter(kill.kind for kill in world.kills)
    objects: Counter[str] = sum((one.counts() for one in ledgers), Counter())
    lines += [
        "",
        f"kills      {dict(kinds)}",
        f"failures   {len(log.failures)} of {total} ({len(log.failures) / max(1, total):.2%})",
        f"           {len(excused)} in the middle of which a replica or backend died",
        f"ledger     {dict(objects)}",
        "",
        f"{'memory, MiB':14}{'first':>8}{'last':>8}{'most':>8}{'a minute':>10}",
    ]
    lines += [_memory(one) for one in world.members if one.memory]
    return "\n".join(lines)


def _memory(member: Member) -> str:
    values = [mib for _, mib in member.memory]
    rise = slope(member.memory)
    shown = "-" if rise is None else f"{rise:+.2f}"
    spared = "  (never killed)" if member.spared else ""
    return f"{member.name:14}{values[0]:8.0f}{values[-1]:8.0f}{max(values):8.0f}{shown:>10}{spared}"
