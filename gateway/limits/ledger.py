"""This process's dealings with the counters that all share.

One task asks the store for all requests that wait for it at that moment, so a process never has
more than one question under way for each kind of limit, however many callers it has.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from gateway.beside import beside
from gateway.database.outage import Outage
from gateway.errors import GatewayError
from gateway.limits.counters import Allowance, Counter, Slots
from gateway.observability.metrics import Metrics
from gateway.ports import CountersAway, CounterStore, Hold, Take

__all__ = ["Ledger", "Refused", "Wanted"]

logger = logging.getLogger(__name__)

SLOT_SECONDS = 15.0
"""How long the places of a process that died stay taken."""

_TICK_SECONDS = 1.0
_GATHER_SECONDS = 0.01
"""Places that are free again are given back together."""

_PATIENCE_SECONDS = 1.0
"""How long a request waits for the store before it is taken to be away."""

_AWAY_SECONDS = 1.0
"""How long a store that is away is not waited for."""

_LAST_WORD_SECONDS = 3.0
_FORGOTTEN_SECONDS = 120.0

Wanted = Sequence[tuple[Counter, int]]
_Outcome = Literal["granted", "refused", "away"]
_Waiter = tuple[int, "asyncio.Future[_Outcome]"]


class Refused(Exception):
    """There is not so much left."""

    def __init__(self, counter: Counter, units: int) -> None:
        super().__init__()
        self.counter = counter
        self.units = units


class _Attempt:
    """One request's way to all that it wants."""

    def __init__(self) -> None:
        self.taken: list[tuple[Counter, int]] = []
        self.waiting: list[tuple[Counter, int, asyncio.Future[_Outcome]]] = []

    def abandon(self) -> Wanted:
        """What is to be given back: it may have been granted meanwhile."""
        for counter, units, future in self.waiting:
            if not future.cancel() and not future.cancelled() and future.result() == "granted":
                self.taken.append((counter, units))
        return self.taken


class Ledger:
    """``closed`` is whether requests are refused while the store is away."""

    def __init__(
        self,
        store: CounterStore,
        metrics: Metrics,
        *,
        closed: bool,
        slot_seconds: float = SLOT_SECONDS,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._closed = closed
        self._slot_seconds = slot_seconds
        self._holder = uuid.uuid4().hex
        self._counters: dict[tuple[str, int], Counter] = {}
        self._waiting: dict[Counter, list[_Waiter]] = {}
        self._due: set[Counter] = set()
        self._wake = asyncio.Event()
        self._away_until = 0.0
        self._outage = Outage(logger, "The store of limits")
        self.generation = 0
        """Goes up when counters are forgotten, so that who remembers them looks again."""

    def allowance(self, key: str, limit: int, ends: float | None = None) -> Allowance:
        found = self._counters.get((key, limit))
        if found is None:
            found = self._counters[key, limit] = Allowance(key, limit, ends=ends)
        assert isinstance(found, Allowance)  # the key says what it limits
        return found

    def slots(self, key: str, limit: int) -> Slots:
        found = self._counters.get((key, limit))
        if found is None:
            found = self._counters[key, limit] = Slots(key, limit)
        assert isinstance(found, Slots)  # the same
        return found

    # -- for requests ---------------------------------------------------------------------------

    async def take(self, wanted: Wanted) -> Wanted:
        """All of it or nothing; what was taken, which is less while the store is away.

        Raises ``Refused`` and ``CountersAway``.
        """
        for counter, units in wanted:
            if counter.left < units:
                return await self._take_slowly(wanted)
        for counter, units in wanted:
            counter.take(units)
            if counter.left < counter.enough and counter.low:
                self._note(counter)
        return wanted

    def give(self, counter: Counter, units: int) -> None:
        """Units that weren't needed, or (below zero) that were needed beyond those taken."""
        # A request may last longer than a counter that nobody else uses is remembered.
        counter = self._counters.setdefault((counter.key, counter.limit), counter)
        counter.give(units)
        if isinstance(counter, Slots) and counter.has_spare:
            self._note(counter)

    async def _take_slowly(self, wanted: Wanted) -> Wanted:
        attempt = _Attempt()
        try:
            for counter, units in wanted:
                self._begin(attempt, counter, units)
            if attempt.waiting:
                await self._end(attempt)
        except BaseException:
            for counter, units in attempt.abandon():
                self.give(counter, units)
            raise
        return attempt.taken

    def _begin(self, attempt: _Attempt, counter: Counter, units: int) -> None:
        """Take from what is here, or ask for more."""
        if counter.left >= units:
            counter.take(units)
            attempt.taken.append((counter, units))
        elif time.monotonic() < self._away_until:
            self._pass_uncounted(attempt, counter, units)
        elif counter.refuses:
            raise Refused(counter, units)
        else:
            attempt.waiting.append((counter, units, self._ask(counter, units)))

    async def _end(self, attempt: _Attempt) -> None:
        """Wait for what was asked."""
        done, late = await asyncio.wait(
            [future for _, _, future in attempt.waiting], timeout=_PATIENCE_SECONDS
        )
        if late:
            self._failed("it doesn't answer in time")
        while attempt.waiting:
            counter, units, future = attempt.waiting.pop()
            outcome = future.result() if future in done else "away"
            future.cancel()
            if outcome == "granted":
                attempt.taken.append((counter, units))
            elif outcome == "away":
                self._pass_uncounted(attempt, counter, units)
            else:
                raise Refused(counter, units)

    def _pass_uncounted(self, attempt: _Attempt, counter: Counter, units: int) -> None:
        """The store is away. Raises ``CountersAway`` where that ends it."""
        if self._closed:
            raise CountersAway("The request's limits can't be checked at the moment. Try again.")
        self._metrics.passed_uncounted()
        if isinstance(counter, Slots):  # it is in use, whoever knows
            counter.take(units)
            attempt.taken.append((counter, units))

    def _ask(self, counter: Counter, units: int) -> asyncio.Future[_Outcome]:
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(counter, []).append((units, future))
        self._wake.set()
        return future

    def _note(self, counter: Counter) -> None:
        self._due.add(counter)
        self._wake.set()

    # -- the task -------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which requests are counted; at its end everything is given back."""
        try:
            async with beside(self._run(), "limits"):
                yield
        finally:
            await self._give_all()
            await self._store.aclose()

    async def tidy(self) -> int:
        """Forget old counters in the store; for the reaper."""
        return await self._store.tidy()

    async def _run(self) -> None:
        tick_at = time.monotonic() + _TICK_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, tick_at - time.monotonic())):
                    await self._wake.wait()
            if not self._waiting and self._wake.is_set():
                await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            ticked = time.monotonic() >= tick_at
            if ticked:
                tick_at = time.monotonic() + _TICK_SECONDS
            try:
                await self._round(ticked=ticked)
            except Exception:
                logger.exception("Counting limits failed; it goes on")
                self._failed("see above")

    async def _round(self, *, ticked: bool) -> None:
        waiting, self._waiting = self._waiting, {}
        due, self._due = self._due, set()
        if ticked:
            due.update(self._counters.values())
            self._forget()
        takes: list[tuple[Allowance, Take]] = []
        holds: list[tuple[Slots, Hold]] = []
        try:
            for counter in {**dict.fromkeys(waiting), **dict.fromkeys(due)}:
                needs = [units for units, future in waiting.get(counter, ()) if not future.done()]
                if isinstance(counter, Slots):
                    if needs or counter.is_due(self._slot_seconds / 3):
                        holds.append((counter, counter.ask(needs)))
                elif (needs or counter.due or counter.low) and (take := counter.ask(needs)):
                    takes.append((counter, take))
            await asyncio.gather(self._take_all(takes, waiting), self._hold_all(holds, waiting))
        finally:
            for waiters in waiting.values():
                _resolve(waiters, "away")

    async def _take_all(
        self, takes: list[tuple[Allowance, Take]], waiting: dict[Counter, list[_Waiter]]
    ) -> None:
        if not takes:
            return
        try:
            found = await self._store.take([take for _, take in takes])
        except (GatewayError, SQLAlchemyError, OSError) as error:
            for allowance, take in takes:
                allowance.undo(take)
            self._failed(_cause(error))
            return
        except BaseException:
            for allowance, take in takes:
                allowance.undo(take)
            raise
        self._answered()
        for (allowance, _), taken in zip(takes, found, strict=True):
            allowance.answered(taken.granted, taken.used)
            if not _serve(allowance, waiting.get(allowance, ())):
                allowance.refused()

    async def _hold_all(
        self, holds: list[tuple[Slots, Hold]], waiting: dict[Counter, list[_Waiter]]
    ) -> None:
        if not holds:
            return
        try:
            found = await self._store.hold(
                self._holder, [hold for _, hold in holds], self._slot_seconds
            )
        except (GatewayError, SQLAlchemyError, OSError) as error:
            for slots, _ in holds:
                slots.undo()
            self._failed(_cause(error))
            return
        except BaseException:
            for slots, _ in holds:
                slots.undo()
            raise
        self._answered()
        for (slots, _), held in zip(holds, found, strict=True):
            slots.answered(held.slots)
            _serve(slots, waiting.get(slots, ()))
            if slots.left > 0:
                self._due.add(slots)  # someone may have ended meanwhile

    async def _give_all(self) -> None:
        """Best effort: what isn't given back now fades, or is free once the time is over."""
        takes, holds = [], []
        for counter in self._counters.values():
            if isinstance(counter, Slots):
                if counter.held:
                    holds.append(counter.nothing_held())
            elif take := counter.give_all():
                takes.append(take)
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                if takes:
                    await self._store.take(takes)
                if holds:
                    await self._store.hold(self._holder, holds, self._slot_seconds)
        except (GatewayError, SQLAlchemyError, OSError) as error:  # TimeoutError is an OSError
            logger.warning("Units of limits were not given back: %s", _cause(error))

    def _forget(self) -> None:
        """Counters that nobody has used for long; a month that is over among them."""
        before = time.monotonic() - _FORGOTTEN_SECONDS
        old = [
            name
            for name, counter in self._counters.items()
            if counter.forgettable and counter.used_at < before
        ]
        for name in old:
            del self._counters[name]
        if old:
            self.generation += 1

    def _failed(self, cause: str) -> None:
        self._away_until = time.monotonic() + _AWAY_SECONDS
        self._metrics.limits_failed()
        self._outage.noticed(cause)

    def _answered(self) -> None:
        self._away_until = 0.0
        self._outage.over()


def _serve(counter: Counter, waiters: Iterable[_Waiter]) -> bool:
    """In their order, whoever fits; whether all did."""
    everyone = True
    for units, future in waiters:
        if future.done():  # it went away
            continue
        if counter.left >= units:
            counter.take(units)
            future.set_result("granted")
        else:
            everyone = False
            future.set_result("refused")
    return everyone


def _resolve(waiters: Iterable[_Waiter], outcome: _Outcome) -> None:
    for _, future in waiters:
        if not future.done():
            future.set_result(outcome)


def _cause(error: Exception) -> str:
    return error.message if isinstance(error, GatewayError) else type(error).__name__
