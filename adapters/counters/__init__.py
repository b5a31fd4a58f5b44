"""What limits are counted with: the process's memory, the database, Redis."""

from __future__ import annotations

from gateway.database.engine import Database
from gateway.ports import CounterStore
from gateway.settings import SettingsError

__all__ = ["counters_for"]


def counters_for(store: str, database: Database) -> CounterStore:
    """By ``limits.store``. Raises ``SettingsError`` where Redis is asked for without its client."""
    if store == "memory":
        from adapters.counters.memory import MemoryCounters

        return MemoryCounters()
    if store == "database":
        from adapters.counters.database import DatabaseCounters

        return DatabaseCounters(database)
    try:
        from adapters.counters.redis import RedisCounters
    except ImportError:
        raise SettingsError(
            "limits.store: Redis needs its client: pip install 'understudy-gateway[redis]'"
        ) from None
    return RedisCounters(store)
