"""When requests of a batch begin: how many at once, and behind whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.batches import pacing
from gateway.batches.pacing import Pacer, Traffic
from gateway.settings import BatchSettings

pytestmark = pytest.mark.anyio


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


def server(busy: int = 0) -> Any:
    """A model server with so many connections in use."""

    class Server(SimpleNamespace):
        __hash__ = object.__hash__

    return Server(busy_connections=busy)


async def answers(pacer: Pacer, clock: Clock, count: int, seconds: float) -> None:
    """As many requests at once as may be, each of which takes so long, until so many are done."""

    async def one() -> None:
        async with pacer.turn(()) as turn:
            for _ in range(5):
                await asyncio.sleep(0)  # the others of this round begin
            clock.now += seconds / pacer.limit
            turn._started = clock.now - seconds
            turn.answered(1)

    for _ in range(count // max(1, pacer.limit)):
        await asyncio.gather(*(one() for _ in range(pacer.limit)))


async def test_it_begins_with_one_and_grows_while_answers_come_in_time(clock: Clock):
    """Up to the concurrency that is set, and no further."""
    pacer = Pacer(BatchSettings(concurrency=4), Traffic())
    assert pacer.limit == 1
    await answers(pacer, clock, 3, 1.0)
    assert 1 < pacer.limit < 4
    await answers(pacer, clock, 100, 1.0)
    assert pacer.limit == 4


async def test_it_shrinks_when_answers_come_late(clock: Clock):
    """Down to one; and it grows again when they don't."""
    pacer = Pacer(BatchSettings(concurrency=8), Traffic())
    await answers(pacer, clock, 200, 1.0)
    assert pacer.limit == 8
    await answers(pacer, clock, 80, 3.0)
    assert pacer.limit <= 2
    await answers(pacer, clock, 400, 1.0)
    assert pacer.limit == 8


async def test_a_refusal_halves_once_and_waits(clock: Clock):
    """Those that were in flight with it don't halve again."""
    pacer = Pacer(BatchSettings(concurrency=8), Traffic())
    await answers(pacer, clock, 200, 1.0)

    async def refused() -> None:
        async with pacer.turn(()) as turn:
            await asyncio.sleep(0)
            turn.refused(7)

    await asyncio.gather(*(refused() for _ in range(8)))
    assert pacer.limit == 4
    waiting = asyncio.create_task(refused())
    await asyncio.sleep(0)
    assert pacer._not_before == clock.now + 7
    waiting.cancel()


async def test_callers_are_what_is_busy_and_not_a_batch_s(clock: Clock):
    """Two batches at two servers; whatever goes on there besides is callers'."""
    one, other = server(3), server(2)
    traffic = Traffic()
    traffic.count([one], 1)
    traffic.count([one, other], 1)
    traffic.count([one, other], 1)
    assert traffic.callers([one, other]) == 2
    assert traffic.callers([other]) == 1
    for servers in ([one], [one, other], [one, other]):
        traffic.count(servers, -1)
    assert traffic.callers([one, other]) == 5
    assert not traffic._own


async def test_it_waits_for_callers_until_its_patience_is_over(clock: Clock):
    """Then one request goes, and no second one beside it."""
    busy = server(3)
    pacer = Pacer(BatchSettings(yield_above=2, patience_seconds=10), Traffic())
    begun = asyncio.Semaphore(0)
    over = asyncio.Event()

    async def line() -> None:
        async with pacer.turn([busy]):
            busy.busy_connections += 1
            begun.release()
            await over.wait()
            busy.busy_connections -= 1

    lines = [asyncio.create_task(line()) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert begun.locked()
    clock.now += 10
    await asyncio.wait_for(begun.acquire(), 20)
    clock.now += 10
    await asyncio.sleep(0.3)
    assert begun.locked()
    busy.busy_connections = 1
    over.set()
    await asyncio.wait_for(asyncio.gather(*lines), 20)


@pytest.mark.alone
async def test_it_leaves_room_after_a_caller(clock: Clock):
    """Half of what it may have in flight, for a second."""
    place = server()
    pacer = Pacer(BatchSettings(concurrency=8), Traffic())
    await answers(pacer, clock, 200, 1.0)
    over = asyncio.Event()
    begun: list[int] = []

    async def line(number: int) -> None:
        async with pacer.turn([place]):
            place.busy_connections += 1
            begun.append(number)
            await over.wait()
            place.busy_connections -= 1

    place.busy_connections = 1  # a caller's
    lines = [asyncio.create_task(line(number)) for number in range(8)]
    await asyncio.sleep(0.05)
    assert len(begun) == 4
    place.busy_connections -= 1
    clock.now += 1.5
    await asyncio.sleep(0.4)
    assert len(begun) == 8
    over.set()
    await asyncio.gather(*lines)


async def test_what_waits_for_its_turn_holds_no_permit():
    """A place of the project's limits is asked for when all else is there."""
    held = 0
    most = 0

    @asynccontextmanager
    async def permit() -> AsyncIterator[None]:
        nonlocal held, most
        held += 1
        most = max(most, held)
        try:
            yield
        finally:
            held -= 1

    async def line(pacer: Pacer) -> None:
        async with pacer.turn((), permit()):
            await asyncio.sleep(0.01)

    pacer = Pacer(BatchSettings(concurrency=8), Traffic())
    await asyncio.gather(*(line(pacer) for _ in range(8)))
    assert (most, held) == (1, 0)
