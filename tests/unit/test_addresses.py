"""A headless service's addresses are backends each, with the shares that the backends have."""

from __future__ import annotations

import asyncio

import pytest

from gateway.routing import addresses
from gateway.routing.addresses import Addresses
from gateway.settings import BackendSettings, ModelSettings

pytestmark = pytest.mark.anyio

HEADLESS = BackendSettings(url="http://granite.svc:8080/v1", weight=3, resolve=True)
PLAIN = BackendSettings(url="http://full:8080/v1", weight=1)
MODEL = ModelSettings(id="granite", backends=[HEADLESS, PLAIN])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the name server knows."""
    known: dict[str, list[str]] = {}

    async def look_up(host: str) -> list[str]:
        if host not in known:
            raise OSError("Name or service not known")
        return known[host]

    monkeypatch.setattr(addresses, "look_up", look_up)
    return known


def backends_of(known: Addresses) -> list[tuple[str | None, int]]:
    [model] = known.models([MODEL])
    return [(one.address, one.weight) for one in model.backends]


async def test_each_address_is_a_backend(names: dict[str, list[str]]):
    """Weight 3 to 1 stays 3 to 1, however many pods there are."""
    names["granite.svc"] = ["10.0.0.1", "10.0.0.2"]
    known = Addresses()
    known.wants([], [MODEL])
    assert backends_of(known) == [(None, 3), (None, 1)]
    assert await known.refresh()
    assert backends_of(known) == [("10.0.0.1", 3), ("10.0.0.2", 3), (None, 2)]


async def test_addresses_come_and_go(names: dict[str, list[str]]):
    """A change is told, no change isn't."""
    names["granite.svc"] = ["10.0.0.1"]
    known = Addresses()
    known.wants([HEADLESS], [])
    assert await known.refresh()
    assert not await known.refresh()
    names["granite.svc"] = ["10.0.0.7", "10.0.0.8"]
    assert await known.refresh()
    assert [one.address for one in known.backends([HEADLESS])] == ["10.0.0.7", "10.0.0.8"]


async def test_a_name_server_that_fails_takes_nothing_away(
    names: dict[str, list[str]], caplog: pytest.LogCaptureFixture
):
    """What was known last stays."""
    names["granite.svc"] = ["10.0.0.1"]
    known = Addresses()
    known.wants([], [MODEL])
    await known.refresh()
    names.clear()
    assert not await known.refresh()
    assert backends_of(known) == [("10.0.0.1", 3), (None, 1)]
    assert "granite.svc: can't be looked up" in caplog.text


async def test_a_host_that_is_named_no_more_is_forgotten(names: dict[str, list[str]]):
    """Nothing is looked up for nobody."""
    names["granite.svc"] = ["10.0.0.1"]
    known = Addresses()
    known.wants([], [MODEL])
    await known.refresh()
    known.wants([], [])
    assert backends_of(known) == [(None, 3), (None, 1)]
    assert not await known.refresh()


async def test_a_new_host_asks_for_being_looked_up():
    """At once, and only while it is new."""
    known = Addresses()
    known.wants([PLAIN], [])
    assert not known.asked.is_set()
    known.wants([HEADLESS], [])
    async with asyncio.timeout(10):
        await known.asked.wait()


async def test_this_machine_can_be_looked_up():
    """By the system's own resolver."""
    assert "127.0.0.1" in await addresses.look_up("localhost")
