"""Whether a request may go on, and what it has used once it is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway.errors import GatewayError, QuotaExceeded, RequestsLimited, TokensLimited
from gateway.http.requests import principal_of_scope
from gateway.identity.principal import Principal
from gateway.limits.counters import Allowance, Counter, Slots
from gateway.limits.estimate import declared_input, needed_tokens, used_tokens
from gateway.limits.headers import limit_headers
from gateway.limits.ledger import Ledger, Refused, Wanted
from gateway.limits.rules import AppliedLimit, LimitRules
from gateway.observability.call import ModelCall
from gateway.observability.metrics import Metrics

if TYPE_CHECKING:
    from gateway.http.asgi import Scope

__all__ = ["Limiter", "RequestLease"]

_MOST_REMEMBERED = 10_000
_LONGEST_WAIT_SECONDS = 5.0


class _Limits(Struct):
    """Of one project, key and model. ``tokens`` are by the minute, ``budgets`` by the month."""

    requests: list[Allowance]
    tokens: list[Allowance]
    budgets: list[Allowance]
    slots: list[Slots]
    names: dict[Counter, str]
    """The kind of each counter."""
    wanted: list[tuple[Counter, int]]
    """One of each by every request, but for tokens, of which it depends."""

    def __bool__(self) -> bool:
        return bool(self.names)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As they are now."""
        return limit_headers(self.requests, self.tokens)


class RequestLease:
    """One request in progress, with what was set aside for it."""

    __slots__ = ("_began", "_ledger", "_limits", "_taken")

    def __init__(self, ledger: Ledger, limits: _Limits, taken: Wanted) -> None:
        self._ledger = ledger
        self._limits = limits
        self._taken: Wanted | None = taken
        self._began = monotonic()

    def end(self, call: ModelCall | None) -> None:
        """Settle what was set aside with what was used; nothing of it with ``None``, where the
        calls of the request are counted by themselves.
        """
        taken, self._taken = self._taken, None
        if taken is None:
            return
        limits = self._limits
        used = sum(used_tokens(call)[:2]) if limits.tokens or limits.budgets else 0
        seconds = monotonic() - self._began
        for counter, units in taken:
            if isinstance(counter, Slots):
                self._ledger.give(counter, units)
            elif counter.settles:
                unused = units - used
                if unused > 0:  # what has faded meanwhile is back already
                    unused = min(unused, counter.still_counted(units, seconds))
                self._ledger.give(counter, unused)


class Limiter:
    """``canonical`` gives the catalog's id of a model that may be asked for by an alias."""

    def __init__(
        self,
        rules: LimitRules,
        ledger: Ledger,
        metrics: Metrics,
        canonical: Callable[[str], str],
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._metrics = metrics
        self._canonical = canonical
        self._known: dict[tuple[str, str | None, str], _Limits] = {}
        self._generation = 0
        self._month, self._month_ends = _month()

    # -- requests -------------------------------------------------------------------------------

    async def begin(
        self, scope: Scope, model: str, request: Any, body: bytes
    ) -> RequestLease | None:
        """``Admission``, for the relay: the answer gets the headers too."""
        limits = self._limits(principal_of_scope(scope), model)
        if not limits:
            return None
        scope["state"]["exchange"].limit_headers = limits.headers
        need = needed_tokens(request, body) if limits.tokens else 0
        return await self._take(limits, need)

    @asynccontextmanager
    async def composed(
        self, scope: Scope, model: str, max_tokens: int | None
    ) -> AsyncIterator[None]:
        """``ComposedAdmission``: what was set aside is given back, since each call is counted."""
        limits = self._limits(principal_of_scope(scope), self._canonical(model))
        if not limits:
            yield
            return
        scope["state"]["exchange"].limit_headers = limits.headers
        lease = await self._take(limits, max(declared_input(scope), max_tokens or 0))
        try:
            yield
        finally:
            lease.end(None)

    @asynccontextmanager
    async def turn(self, principal: Principal, model: str, tokens: int) -> AsyncIterator[None]:
        """``Turns``: for what nobody waits for. Its calls are counted by themselves."""
        limits = self._limits(principal, self._canonical(model))
        lease = None
        while limits:
            try:
                lease = await self._take(limits, tokens, told=False)
                break
            except GatewayError as refused:
                pause = min(refused.retry_after or 1, _LONGEST_WAIT_SECONDS)
                await asyncio.sleep(pause)
                limits = self._limits(principal, self._canonical(model))
        try:
            yield
        finally:
            if lease is not None:
                lease.end(None)

    def count(self, principal: Principal, call: ModelCall) -> None:
        """A call that is a part of something larger was made; never refused, always counted."""
        given, made, _ = used_tokens(call)
        if not given + made:
            return
        limits = self._limits(principal, self._canonical(call.model))
        for allowance in (*limits.tokens, *limits.budgets):
            self._ledger.give(allowance, -given - made)

    async def _take(self, limits: _Limits, tokens: int, *, told: bool = True) -> RequestLease:
        wanted = limits.wanted
        if limits.tokens:
            wanted = [*wanted, *((one, min(tokens, one.limit)) for one in limits.tokens)]
        try:
            taken = await self._ledger.take(wanted)
        except Refused as refused:
            kind = limits.names[refused.counter]
            if told:
                self._metrics.limit_refused(kind)
            raise _refusal(kind, refused) from None
        return RequestLease(self._ledger, limits, taken)

    # -- which limits ---------------------------------------------------------------------------

    def _limits(self, principal: Principal, model: str) -> _Limits:
        if time() >= self._month_ends:
            self._month, self._month_ends = _month()
            self._known.clear()
        if self._generation != self._ledger.generation or len(self._known) > _MOST_REMEMBERED:
            self._generation = self._ledger.generation
            self._known.clear()
        key = (principal.project, principal.key_id, model)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._look_up(*key)
        return found

    def _look_up(self, project: str, key: str | None, model: str) -> _Limits:
        found = _Limits([], [], [], [], {}, [])
        for one in self._rules.applied(project, key, model):
            if one.kind == "concurrent_requests":
                slots = self._ledger.slots(one.key, one.limit)
                found.slots.append(slots)
                counter: Counter = slots
            else:
                counter = self._allowance(one, found)
            found.names[counter] = one.kind
            if one.kind != "tokens_per_minute":
                found.wanted.append((counter, 1))
        return found

    def _allowance(self, one: AppliedLimit, found: _Limits) -> Allowance:
        if one.kind == "tokens_per_month":
            name = f"{one.key}|{self._month}"
            allowance = self._ledger.allowance(name, one.limit, self._month_ends)
            found.budgets.append(allowance)
        else:
            allowance = self._ledger.allowance(one.key, one.limit)
            of_requests = one.kind == "requests_per_minute"
            (found.requests if of_requests else found.tokens).append(allowance)
        allowance.settles = one.kind != "requests_per_minute"
        return allowance


def _month() -> tuple[str, float]:
    """This month's name, and when it ends."""
    now = datetime.now(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return f"{now:%Y-%m}", datetime(year, month, 1, tzinfo=UTC).timestamp()


def _refusal(kind: str, refused: Refused) -> GatewayError:
    counter, units = refused.counter, refused.units
    wait = max(1, math.ceil(counter.seconds_until(units)))
    match kind:
        case "tokens_per_month":
            return QuotaExceeded(
                f"You exceeded your quota: the budget of {counter.limit} tokens for this month is "
                "used up.",
                retry_after=wait,
            )
        case "concurrent_requests":
            return RequestsLimited(
                f"Rate limit reached: {counter.limit} requests are in progress, which is the "
                "limit. Try again when one has ended.",
                retry_after=wait,
            )
        case "tokens_per_minute":
            return TokensLimited(
                f"Rate limit reached on tokens per min (TPM): Limit {counter.limit}, "
                f"Requested {units}. Try again in {wait}s.",
                retry_after=wait,
            )
        case _:
            return RequestsLimited(
                f"Rate limit reached on requests per min (RPM): Limit {counter.limit}. "
                f"Try again in {wait}s.",
                retry_after=wait,
            )
