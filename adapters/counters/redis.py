"""Counters in Redis or Valkey."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.database.outage import Outage
from gateway.errors import UpstreamUnavailable
from gateway.ports import Held, Hold, Take, Taken

__all__ = ["RedisCounters"]

logger = logging.getLogger(__name__)

_PREFIX = "understudy:limits:"
_SECONDS = 2.0
"""How long Redis may take for a connection or an answer."""

_CONNECTIONS = 4

# Both take the server's clock, which is one for all replicas. Numbers come back as text, since
# Lua's would lose their fractions.
_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local answers = {}
for i, key in ipairs(KEYS) do
  local limit, rate, owed, amount, least, lifetime = unpack(ARGV, i * 6 - 5, i * 6)
  local found = redis.call('HMGET', key, 'used', 'at')
  local used = tonumber(found[1]) or 0
  local at = tonumber(found[2]) or now
  used = math.max(0, used - math.max(0, now - at) * tonumber(rate))
  used = math.max(0, used + tonumber(owed))
  local granted = math.min(tonumber(amount), math.floor(tonumber(limit) - used))
  if granted < tonumber(least) then granted = 0 end
  used = used + granted
  redis.call('HSET', key, 'used', string.format('%.6f', used), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, lifetime)
  answers[#answers + 1] = string.format('%d', granted)
  answers[#answers + 1] = string.format('%.6f', used)
end
return answers
"""
_HOLD = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local holder, seconds = ARGV[1], tonumber(ARGV[2])
local answers = {}
for i, key in ipairs(KEYS) do
  local limit, in_use, wanted = unpack(ARGV, i * 3, i * 3 + 2)
  local others = 0
  local found = redis.call('HGETALL', key)
  for j = 1, #found, 2 do
    local slots, expires = string.match(found[j + 1], '(%d+) (.+)')
    if tonumber(expires) <= now then
      redis.call('HDEL', key, found[j])
    elseif found[j] ~= holder then
      others = others + tonumber(slots)
    end
  end
  local slots = math.min(tonumber(wanted), tonumber(limit) - others)
  slots = math.max(tonumber(in_use), slots)
  if slots > 0 then
    redis.call('HSET', key, holder, string.format('%d %.6f', slots, now + seconds))
    redis.call('EXPIRE', key, math.ceil(seconds) + 1)
  else
    redis.call('HDEL', key, holder)
  end
  answers[#answers + 1] = slots
  answers[#answers + 1] = others
end
return answers
"""


class RedisCounters:
    """The ``CounterStore`` port; each call is one script, which Redis runs alone.

    All keys of a call are touched by one script, so a Redis Cluster doesn't do: one server, or one
    with replicas behind Sentinel's or the operator's service, does.
    """

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_SECONDS,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a script that was cut off may have counted
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._take = self._redis.register_script(_TAKE)
        self._hold = self._redis.register_script(_HOLD)
        self._outage = Outage(logger, "The store of limits")

    async def take(self, takes: Sequence[Take]) -> list[Taken]:
        arguments: list[Any] = []
        for one in takes:
            rate = 0.0 if one.seconds is None else one.limit / one.seconds
            least = max(one.least, 1)
            arguments += [one.limit, repr(rate), one.owed, one.amount, least]
            arguments.append(int(one.lifetime) + 1)
        keys = [f"{_PREFIX}{one.key}" for one in takes]
        async with self._translated():
            found = await self._take(keys=keys, args=arguments)
        return [
            Taken(int(granted), float(used))
            for granted, used in zip(found[::2], found[1::2], strict=True)
        ]

    async def hold(self, holder: str, holds: Sequence[Hold], seconds: float) -> list[Held]:
        arguments: list[Any] = [holder, seconds]
        for one in holds:
            arguments += [one.limit, one.in_use, one.slots]
        keys = [f"{_PREFIX}{one.key}:slots" for one in holds]
        async with self._translated():
            found = await self._hold(keys=keys, args=arguments)
        return [
            Held(int(slots), int(others))
            for slots, others in zip(found[::2], found[1::2], strict=True)
        ]

    async def tidy(self) -> int:
        """Nothing: Redis forgets by itself."""
        return 0

    async def aclose(self) -> None:
        await self._redis.aclose()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            # Of some errors the text has the address, and maybe the password of the URL.
            self._outage.noticed(type(error).__name__)
            raise UpstreamUnavailable(
                "The store of limits can't be reached at the moment.", code="limits_unavailable"
            ) from error
        else:
            self._outage.over()
