"""What a process takes ahead, gives back and believes, whatever its store does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from adapters.counters.memory import MemoryCounters
from gateway.errors import UpstreamUnavailable
from gateway.limits import ledger as module
from gateway.limits.counters import Allowance
from gateway.limits.ledger import Ledger, Refused
from gateway.observability.metrics import Metrics
from gateway.ports import CountersAway, Held, Hold, Take, Taken
from tests.support.inprocess import until

pytestmark = pytest.mark.anyio


class Store(MemoryCounters):
    """Counts what it is asked; can be away, and can hang."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: list[Take] = []
        self.holds: list[Hold] = []
        self.calls = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def take(self, takes: Sequence[Take]) -> list[Taken]:
        await self._called()
        self.takes += takes
        return await super().take(takes)

    async def hold(self, holder: str, holds: Sequence[Hold], seconds: float) -> list[Held]:
        await self._called()
        self.holds += holds
        return await super().hold(holder, holds, seconds)

    async def _called(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.away:
            raise UpstreamUnavailable("away")

    def used(self, key: str) -> float:
        return self._used[key][0]


@asynccontextmanager
async def running(
    store: Store, *, closed: bool = False, slot_seconds: float = 15.0
) -> AsyncIterator[Ledger]:
    ledger = Ledger(store, Metrics(), closed=closed, slot_seconds=slot_seconds)
    async with ledger.running():
        yield ledger


async def passes(ledger: Ledger, allowance: Allowance, units: int = 1) -> bool:
    try:
        await ledger.take([(allowance, units)])
    except Refused:
        return False
    return True


async def test_a_large_limit_is_asked_for_ahead():
    """A fiftieth at a time: most requests ask nobody."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 10_000)
        for _ in range(150):
            assert await passes(ledger, allowance)
        assert store.calls <= 3
        assert sum(take.amount for take in store.takes) <= 150 + 2 * 10_000 / 50


async def test_a_small_limit_is_asked_for_unit_by_unit():
    """Nothing of it lies unused at a process."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 5)
        assert [await passes(ledger, allowance) for _ in range(7)] == [True] * 5 + [False] * 2
        assert allowance.left == 0


async def test_near_the_limit_nothing_is_taken_ahead():
    """Once three quarters are used, what others need isn't held back."""
    store = Store()
    await store.take([Take(key="a", limit=1000, seconds=60.0, amount=800)])
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 1000)
        assert await passes(ledger, allowance)  # it doesn't know yet
        await until(lambda: allowance.left == 0, "what was taken ahead is given back")
        assert await passes(ledger, allowance)
        assert allowance.left == 0


async def test_what_is_unused_goes_back():
    """A process that has no more requests keeps nothing of the limit."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 1000)
        assert await passes(ledger, allowance)
        assert allowance.left == 20
        await until(lambda: store.used("a") <= 1, "what is left has gone back", within=30)
        assert allowance.left == 0


@pytest.mark.alone
async def test_a_counter_in_use_keeps_what_it_has_ahead():
    """Also while nobody has to ask for more."""
    async with running(store := Store()) as ledger:
        allowance = ledger.allowance("key", 6000)
        await passes(ledger, allowance)
        await until(lambda: allowance.left > 100, "units taken ahead")
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            assert await passes(ledger, allowance)
            await asyncio.sleep(0.2)
        assert all(one.owed >= 0 for one in store.takes)
        assert allowance.left > 50


async def test_the_end_gives_back_everything():
    """What is left and what is owed is told at the end, places as well."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 10_000, time.time() + 3600)
        slots = ledger.slots("a", 10)
        await ledger.take([(allowance, 1), (slots, 1)])
        ledger.give(allowance, -7)
        ledger.give(slots, 1)
    assert store.used("a") == 8
    assert store._slots == {}


async def test_what_is_owed_is_told_soon():
    """More tokens than were thought are counted by the store within a second or two."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 10)
        assert await passes(ledger, allowance)
        ledger.give(allowance, -300)
        await until(lambda: store.used("a") > 250, "the debt is told")
        assert not await passes(ledger, allowance)


async def test_no_more_is_left_than_the_limit():
    """What was taken ahead and not used fades; a caller is never told of more than there is."""
    allowance = Allowance("a", 60_000)
    allowance.answered(granted=1200, used=1200.0)
    assert allowance.remaining(time.monotonic() + 600) == 60_000


async def test_what_has_faded_is_not_given_back():
    """Half of what was taken half a minute ago has come back by itself."""
    minute, month = Allowance("a", 6000), Allowance("b", 6000, ends=time.time() + 3600)
    assert minute.still_counted(4000, seconds=30) == 1000
    assert minute.still_counted(4000, seconds=90) == 0
    assert month.still_counted(4000, seconds=90) == 4000


async def test_all_or_nothing_is_taken():
    """What one limit refuses isn't used up at the others."""
    store = Store()
    async with running(store) as ledger:
        hour = time.time() + 3600  # so that nothing fades meanwhile
        wide = ledger.allowance("wide", 10, hour)
        narrow = ledger.allowance("narrow", 1, hour)
        await ledger.take([(wide, 1), (narrow, 1)])
        for _ in range(3):
            with pytest.raises(Refused) as raised:
                await ledger.take([(wide, 1), (narrow, 1)])
            assert raised.value.counter is narrow
        assert wide.remaining() == 9


async def test_waiters_are_served_together():
    """A hundred callers at once are one question."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 40)
        done = await asyncio.gather(*(passes(ledger, allowance) for _ in range(100)))
        assert sum(done) == 40
        assert store.calls <= 3


async def test_a_caller_that_leaves_while_it_waits_takes_nothing():
    """What is granted to it then is the next one's."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 1)
        store.gate.clear()
        task = asyncio.create_task(passes(ledger, allowance))
        await until(lambda: store.calls == 1, "the question")
        task.cancel()
        await asyncio.wait([task])
        store.gate.set()
        assert await passes(ledger, allowance)


@pytest.mark.alone
async def test_while_the_store_is_away_requests_pass_uncounted():
    """They wait for it once, not each; when it is back they are counted again."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 2)
        store.away = True
        assert all([await passes(ledger, allowance) for _ in range(20)])
        assert store.calls <= 3
        store.away = False
        await asyncio.sleep(module._AWAY_SECONDS)
        assert [await passes(ledger, allowance) for _ in range(3)] == [True, True, False]


@pytest.mark.alone
async def test_a_store_that_hangs_is_away_after_a_second():
    """And answers nobody late: what it grants afterwards isn't counted twice."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 2)
        store.gate.clear()
        async with asyncio.timeout(module._PATIENCE_SECONDS + 2):
            assert await passes(ledger, allowance)
        async with asyncio.timeout(0.9):
            assert await passes(ledger, allowance)
        store.gate.set()


async def test_closed_means_that_nothing_passes_uncounted():
    """With a 503, which says when to try again."""
    store = Store()
    async with running(store, closed=True) as ledger:
        allowance = ledger.allowance("a", 2)
        store.away = True
        with pytest.raises(CountersAway):
            await ledger.take([(allowance, 1)])


@pytest.mark.alone
async def test_places_are_given_back_at_once():
    """When a request ends, another process may begin one within moments."""
    store = Store()
    async with running(store) as mine, running(store) as other:
        slots, others = mine.slots("a", 2), other.slots("a", 2)
        await mine.take([(slots, 1)])
        await mine.take([(slots, 1)])
        with pytest.raises(Refused):
            await other.take([(others, 1)])
        mine.give(slots, 1)
        await until(lambda: slots.held == 1, "its place is given back", within=1)
        await other.take([(others, 1)])
        with pytest.raises(Refused):
            await mine.take([(slots, 1)])


@pytest.mark.alone
async def test_a_long_request_keeps_its_place():
    """Its lease is renewed, however much else goes on."""
    store = Store()
    async with running(store, slot_seconds=1.5) as mine, running(store) as other:
        slots, others = mine.slots("a", 1), other.slots("a", 1)
        busy = mine.allowance("busy", 10)
        await mine.take([(slots, 1)])
        for _ in range(25):
            await passes(mine, busy)
            await asyncio.sleep(0.1)
        with pytest.raises(Refused):
            await other.take([(others, 1)])


async def test_counters_of_nobody_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    """A process doesn't keep every key it has ever seen."""
    monkeypatch.setattr(module, "_FORGOTTEN_SECONDS", 0.5)
    store = Store()
    async with running(store) as ledger:
        for number in range(50):
            assert await passes(ledger, ledger.allowance(f"key-{number}", 5))
        await until(lambda: not ledger._counters, "counters are forgotten", within=30)
        assert ledger.generation > 0


async def test_a_request_that_outlasts_its_counter_is_counted(monkeypatch: pytest.MonkeyPatch):
    """A long stream settles at its end, though nobody else has used its limits for minutes."""
    monkeypatch.setattr(module, "_FORGOTTEN_SECONDS", 0.5)
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("month", 1_000_000, time.time() + 3600)
        assert await passes(ledger, allowance)
        await until(lambda: not ledger._counters, "the counter is forgotten", within=30)
        ledger.give(allowance, -50_000)
        await until(lambda: store.used("month") > 50_000, "its tokens are counted", within=30)


@pytest.mark.alone
async def test_a_place_on_its_way_back_is_nobody_s():
    """While the store is being told of it, another request here can't have it too."""
    store = Store()
    async with running(store) as mine, running(store) as other:
        slots, others = mine.slots("a", 1), other.slots("a", 1)
        await mine.take([(slots, 1)])
        store.gate.clear()
        calls = store.calls
        mine.give(slots, 1)
        await until(lambda: store.calls > calls, "it is being given back", within=2)
        mine_again = asyncio.create_task(mine.take([(slots, 1)]))
        await asyncio.sleep(0.05)
        assert not mine_again.done()
        store.gate.set()
        won = await asyncio.gather(mine_again, other.take([(others, 1)]), return_exceptions=True)
        assert sum(isinstance(one, Refused) for one in won) == 1


@pytest.mark.alone
async def test_what_passed_while_the_store_was_away_is_told_when_it_is_back():
    """Others then see that the place is taken."""
    store = Store()
    store.away = True
    async with running(store) as mine, running(store) as other:
        slots, others = mine.slots("a", 1), other.slots("a", 1)
        await mine.take([(slots, 1)])
        store.away = False
        await until(lambda: slots.held == 1, "the place is told of", within=4)
        with pytest.raises(Refused):
            await other.take([(others, 1)])


async def test_a_fault_in_the_store_is_no_end(caplog: pytest.LogCaptureFixture):
    """What nobody foresaw is logged, requests pass, and the next question is asked."""
    store = Store()
    async with running(store) as ledger:
        allowance = ledger.allowance("a", 2)
        take, store.take = store.take, None  # type: ignore[assignment,method-assign]
        assert await passes(ledger, allowance)
        store.take = take  # type: ignore[method-assign]
        await asyncio.sleep(module._AWAY_SECONDS)
        assert [await passes(ledger, allowance) for _ in range(3)] == [True, True, False]
    assert "Counting limits failed" in caplog.text
