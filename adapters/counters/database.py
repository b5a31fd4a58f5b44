"""Counters in the database, which all replicas have anyway."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from gateway.database.engine import Database
from gateway.ports import Held, Hold, Take, Taken

__all__ = ["DatabaseCounters"]

_TIDIED_AT_ONCE = 1000

_POSTGRESQL = {
    "greatest": "GREATEST",
    "least": "LEAST",
    "floor": "floor",
    "now": "extract(epoch FROM clock_timestamp())",  # one clock for all replicas
}
_SQLITE = {"greatest": "MAX", "least": "MIN", "floor": "", "now": "CAST(:clock AS REAL)"}

# One statement reads, decides and writes. `used` fades by `rate` units a second.
_TAKE = """
INSERT INTO limit_counters AS c (key, used, at, granted, expires_at)
VALUES (:key, :first_used, {now}, :first_granted, {now} + :lifetime)
ON CONFLICT (key) DO UPDATE SET
  granted = CASE WHEN {granted} >= :least THEN CAST({granted} AS BIGINT) ELSE 0 END,
  used = {used} + CASE WHEN {granted} >= :least THEN {granted} ELSE 0 END,
  at = {greatest}(c.at, {now}),
  expires_at = {greatest}(c.expires_at, {now} + :lifetime)
RETURNING granted, used
"""
_USED = (
    "{greatest}(0.0, {greatest}(0.0, c.used - {greatest}(0.0, {now} - c.at) * "
    "CAST(:rate AS DOUBLE PRECISION)) + CAST(:owed AS DOUBLE PRECISION))"
)
_GRANTED = (
    "{least}(CAST(:amount AS DOUBLE PRECISION), {floor}(CAST(:limit AS DOUBLE PRECISION) - {used}))"
)
_LOCK = """
INSERT INTO limit_counters (key, used, at, granted, expires_at)
VALUES (:key, 0, {now}, 0, {now} + :seconds)
ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at
"""
_OTHERS = """
SELECT CAST(coalesce(sum(slots), 0) AS BIGINT) FROM limit_slots
WHERE key = :key AND holder <> :holder AND expires_at > {now}
"""
_HOLD = """
INSERT INTO limit_slots (key, holder, slots, expires_at)
VALUES (:key, :holder, :slots, {now} + :seconds)
ON CONFLICT (key, holder) DO UPDATE
SET slots = excluded.slots, expires_at = excluded.expires_at
"""
_LET_GO = "DELETE FROM limit_slots WHERE key = :key AND holder = :holder"
_TIDY = """
DELETE FROM {table} WHERE key IN (
  SELECT key FROM {table} WHERE expires_at < {now} LIMIT :most
) AND expires_at < {now}
"""


class DatabaseCounters:
    """The ``CounterStore`` port on the tables ``limit_counters`` and ``limit_slots``.

    Rows are written in the order of their keys, so that no two processes wait for each other.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        words = dict(_SQLITE if database.is_sqlite else _POSTGRESQL)
        used = _USED.format_map(words)
        granted = _GRANTED.format_map({**words, "used": used})
        if database.is_sqlite:  # which has no floor() everywhere; what is below 0 is not granted
            granted = f"MIN(:amount, CAST(CAST(:limit AS REAL) - {used} AS INTEGER))"
        self._words = words
        self._take = text(_TAKE.format_map({**words, "used": used, "granted": granted}))
        self._lock = text(_LOCK.format_map(words))
        self._others = text(_OTHERS.format_map(words))
        self._hold = text(_HOLD.format_map(words))
        self._let_go = text(_LET_GO)

    async def take(self, takes: Sequence[Take]) -> list[Taken]:
        taken: dict[str, Taken] = {}
        async with self._database.begin() as session:
            for one in sorted(takes, key=lambda one: one.key):
                found = await session.execute(self._take, self._clocked(_parameters(one)))
                granted, used = found.one()
                taken[one.key] = Taken(int(granted), float(used))
        return [taken[one.key] for one in takes]

    async def hold(self, holder: str, holds: Sequence[Hold], seconds: float) -> list[Held]:
        held: dict[str, Held] = {}
        async with self._database.begin() as session:
            for one in sorted(holds, key=lambda one: one.key):
                named = self._clocked({"key": one.key, "seconds": seconds})
                await session.execute(self._lock, named)
                named = self._clocked({"key": one.key, "holder": holder})
                others = int((await session.execute(self._others, named)).scalar_one())
                slots = max(one.in_use, min(one.slots, one.limit - others))
                if slots:
                    named = {"key": one.key, "holder": holder, "slots": slots, "seconds": seconds}
                    await session.execute(self._hold, self._clocked(named))
                else:
                    await session.execute(self._let_go, {"key": one.key, "holder": holder})
                held[one.key] = Held(slots, others)
        return [held[one.key] for one in holds]

    async def tidy(self) -> int:
        done = 0
        for table in ("limit_counters", "limit_slots"):
            statement = text(_TIDY.format_map({**self._words, "table": table}))
            async with self._database.begin() as session:
                found: Any = await session.execute(
                    statement, self._clocked({"most": _TIDIED_AT_ONCE})
                )
                done += int(found.rowcount)
        return done

    async def aclose(self) -> None:
        """The database is its owner's to close."""

    def _clocked(self, parameters: dict[str, object]) -> dict[str, object]:
        """On SQLite, processes share a machine and so a clock."""
        if self._database.is_sqlite:
            parameters["clock"] = time.time()
        return parameters


def _parameters(one: Take) -> dict[str, object]:
    used = max(0, one.owed)
    least = max(one.least, 1)
    granted = min(one.amount, one.limit - used)
    if granted < least:
        granted = 0
    return {
        "key": one.key,
        "limit": one.limit,
        "rate": 0.0 if one.seconds is None else one.limit / one.seconds,
        "owed": one.owed,
        "amount": one.amount,
        "least": least,
        "lifetime": one.lifetime,
        "first_used": float(used + granted),
        "first_granted": granted,
    }
