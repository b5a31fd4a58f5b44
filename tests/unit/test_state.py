"""What outlives a request: made ready together, tried again where it can't be, closed in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import UpstreamUnavailable
from gateway.state import State
from tests.support.inprocess import until

pytestmark = pytest.mark.anyio


class Port:
    """Notes when it is started and closed; `broken` starts fail."""

    def __init__(self, name: str, log: list[str], broken: int = 0) -> None:
        self.name, self.log, self.broken = name, log, broken

    async def start(self) -> None:
        if self.broken:
            self.broken -= 1
            raise UpstreamUnavailable(f"{self.name} is down")
        self.log.append(f"start {self.name}")

    async def aclose(self) -> None:
        self.log.append(f"close {self.name}")


def state(log: list[str], broken: int = 0) -> State:
    async def upgrade(_: Any) -> None:
        log.append("upgrade")

    ports: dict[str, Any] = {
        name: Port(name, log, broken if name == "objects" else 0)
        for name in ("database", "objects", "index", "converter", "queue")
    }
    return State(**ports, upgrade=upgrade)


async def test_it_is_ready_before_the_first_request_where_all_is_well():
    """Schema first, then bucket and queue."""
    log: list[str] = []
    one = state(log)
    async with one.running(None):
        assert one.ready
    assert log[:3] == ["upgrade", "start objects", "start queue"]


async def test_it_closes_in_the_order_of_who_uses_whom():
    """The queue first, the database last."""
    log: list[str] = []
    async with state(log).running(None):
        log.clear()
    assert log == [
        f"close {name}" for name in ("queue", "converter", "index", "objects", "database")
    ]


async def test_what_is_down_at_the_start_is_tried_again():
    """The gateway starts all the same, and is ready once the store is there."""
    one = state([], broken=1)
    async with one.running(None):
        assert not one.ready
        await until(lambda: one.ready, "readiness")


async def test_work_begins_when_all_is_ready_and_ends_with_the_block():
    """The worker is cancelled before anything that it uses is closed."""
    log: list[str] = []

    async def work() -> None:
        try:
            log.append("work")
            await asyncio.sleep(60)
        finally:
            log.append("cancelled")

    one = state(log, broken=1)
    async with one.running(work):
        await until(lambda: "work" in log, "work")
        assert one.ready
    assert log.index("cancelled") < log.index("close queue")


async def test_work_that_fails_begins_again():
    """One bad moment doesn't end ingestion for good."""
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("a fault of ours")
        await asyncio.sleep(60)

    async with state([]).running(work):
        await until(lambda: runs == 2, "a second run")
