"""A host's addresses as backends each: for services without an address of their own (headless).

A name that has many addresses is resolved to one by whoever connects, and kept-alive connections
stay there: one pod would get everything. So each address is a backend, looked up again and again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from msgspec.structs import replace

from gateway.settings import BackendSettings, ModelSettings

__all__ = ["Addresses", "look_up"]

logger = logging.getLogger(__name__)

LOOK_UP_SECONDS = 5.0
LOOK_UPS_AT_ONCE = 4
MOST_ADDRESSES = 64
"""Of one host."""


async def look_up(host: str) -> list[str]:
    """The host's addresses, in a steady order. Raises ``OSError`` and ``TimeoutError``."""
    async with asyncio.timeout(LOOK_UP_SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})[:MOST_ADDRESSES]


class Addresses:
    """What is known of the hosts that are to be resolved.

    A host that can't be looked up keeps the addresses it had; until it had any, its backend is
    connected to by its name.
    """

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._wanted: set[str] = set()
        self.asked = asyncio.Event()
        """Set when a host is wanted of which nothing is known."""

    def wants(self, discover: Iterable[BackendSettings], models: Iterable[ModelSettings]) -> None:
        """These are the backends there are now."""
        every = [*discover, *(backend for model in models for backend in model.backends)]
        self._wanted = {_host(one) for one in every if one.resolve}
        self._known = {host: self._known[host] for host in self._wanted & self._known.keys()}
        if self._wanted - self._known.keys():
            self.asked.set()

    def backends(self, backends: Sequence[BackendSettings]) -> list[BackendSettings]:
        """Each one, or as many as its host has addresses.

        Their weights keep the shares that the backends had before: a backend gets no more because
        it has more pods.
        """
        found = [self._of(backend) for backend in backends]
        share = math.lcm(*(len(one) for one in found))
        return [
            replace(one, weight=one.weight * share // len(several)) if share > 1 else one
            for several in found
            for one in several
        ]

    def models(self, models: Iterable[ModelSettings]) -> list[ModelSettings]:
        return [
            replace(model, backends=self.backends(model.backends))
            if any(one.resolve for one in model.backends)
            else model
            for model in models
        ]

    async def refresh(self) -> bool:
        """Look all hosts up; whether anything is different now."""
        self.asked.clear()
        places = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        hosts = sorted(self._wanted)
        answers = await asyncio.gather(*(self._look_up(host, places) for host in hosts))
        changed = False
        for host, addresses in zip(hosts, answers, strict=True):
            if addresses and addresses != self._known.get(host) and host in self._wanted:
                logger.info("%s: is at %s", host, ", ".join(addresses))
                self._known[host] = addresses
                changed = True
        return changed

    async def _look_up(self, host: str, places: asyncio.Semaphore) -> list[str]:
        async with places:
            try:
                return await look_up(host)
            except (OSError, TimeoutError) as error:
                logger.warning("%s: can't be looked up: %s", host, error or "no answer in time")
                return []

    def _of(self, backend: BackendSettings) -> list[BackendSettings]:
        addresses = self._known.get(_host(backend)) if backend.resolve else None
        if not addresses:
            return [backend]
        return [replace(backend, address=address, resolve=False) for address in addresses]


def _host(backend: BackendSettings) -> str:
    return urlsplit(backend.url).hostname or ""
