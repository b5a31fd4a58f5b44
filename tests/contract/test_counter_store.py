"""The CounterStore port on every adapter: memory, SQLite, PostgreSQL, Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.counters import counters_for
from gateway.database.migrate import upgrade
from gateway.errors import UpstreamUnavailable
from gateway.ports import CounterStore, Hold, Take
from tests.support.databases import open_database, sqlite_url
from tests.support.gateway import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "postgresql", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def stores(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> AsyncIterator[list[CounterStore]]:
    """Three of one kind that share what they count, as replicas do; memory is one for itself."""
    url = sqlite_url(tmp_path)
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    databases = [open_database(url) for _ in range(3)]
    if kind == "redis":
        made = [counters_for(request.getfixturevalue("redis_url"), databases[0]) for _ in range(3)]
    elif kind == "memory":
        made = [counters_for(kind, databases[0])] * 3
    else:
        await upgrade(databases[0])
        made = [counters_for("database", one) for one in databases]
    yield made
    for store in made:
        await store.aclose()
    for one in databases:
        await one.aclose()


def per_hour(key: str, limit: int = 10, **rest: int) -> Take:
    """Of so long a time that nothing fades while a test asks."""
    return Take(key=key, limit=limit, seconds=3600.0, **rest)


async def test_units_are_granted_up_to_the_limit(stores: list[CounterStore]):
    """What is asked for beyond is granted in part, and then not at all."""
    first, second, third = [
        (await store.take([per_hour("a", amount=4, least=1)]))[0] for store in stores
    ]
    assert (first.granted, second.granted, third.granted) == (4, 4, 2)
    assert third.used == pytest.approx(10, abs=0.2)
    [fourth] = await stores[0].take([per_hour("a", amount=1, least=1)])
    assert fourth.granted == 0


async def test_fewer_than_the_least_is_none(stores: list[CounterStore]):
    """A request that needs eight can do nothing with five."""
    await stores[0].take([per_hour("a", amount=5)])
    [found] = await stores[1].take([per_hour("a", amount=9, least=8)])
    assert found.granted == 0
    assert found.used == pytest.approx(5, abs=0.2)
    [found] = await stores[1].take([per_hour("a", amount=9, least=5)])
    assert found.granted == 5


async def test_the_first_of_a_counter_follows_the_same_rule(stores: list[CounterStore]):
    """A counter that isn't there yet grants no more than one that is."""
    takes = [per_hour("new", amount=12, least=11), per_hour("newer", amount=12, least=10)]
    refused, granted = await stores[0].take(takes)
    assert (refused.granted, granted.granted) == (0, 10)


@pytest.mark.alone
async def test_what_is_used_fades_evenly(stores: list[CounterStore]):
    """Of a limit for two seconds a quarter is free again after half a second."""
    take = Take(key="a", limit=1000, seconds=2.0, amount=1000)
    assert (await stores[0].take([take]))[0].granted == 1000
    await asyncio.sleep(0.5)
    [found] = await stores[1].take([take])
    assert 230 <= found.granted <= 600  # a busy machine may be late, never early


async def test_a_sum_does_not_fade(stores: list[CounterStore]):
    """A budget for a month stays used."""
    take = Take(key="month", limit=100, seconds=None, amount=60, least=1)
    [first] = await stores[0].take([take])
    await asyncio.sleep(0.05)
    [second] = await stores[1].take([take])
    assert (first.granted, second.granted, second.used) == (60, 40, 100)


async def test_what_is_owed_is_counted_past_the_limit(stores: list[CounterStore]):
    """An answer longer than was thought is paid for later by those who come after."""
    [found] = await stores[0].take([per_hour("a", owed=25)])
    assert found.used == 25
    [found] = await stores[1].take([per_hour("a", amount=1, least=1)])
    assert found.granted == 0
    assert found.used == pytest.approx(25, abs=0.5)


async def test_what_is_given_back_can_be_taken_again(stores: list[CounterStore]):
    """Giving back is never more than was used."""
    await stores[0].take([per_hour("a", amount=10)])
    await stores[1].take([per_hour("a", owed=-6)])
    [found] = await stores[2].take([per_hour("a", amount=10)])
    assert found.granted == 6
    await stores[1].take([per_hour("a", owed=-60)])
    [found] = await stores[2].take([per_hour("a", amount=20)])
    assert found.granted == 10


async def test_counters_are_apart(stores: list[CounterStore]):
    """Several are taken of in one call, each by itself, in the order asked for."""
    await stores[0].take([per_hour("b", amount=10)])
    taken = await stores[1].take([per_hour("b", amount=3, least=1), per_hour("a", amount=3)])
    assert [one.granted for one in taken] == [0, 3]


async def test_all_at_once_get_no_more_than_the_limit(stores: list[CounterStore]):
    """Sixty takes at one moment, by three processes' worth of stores, share what there is."""
    takes = [
        store.take([Take(key="a", limit=50, seconds=None, amount=1, least=1)])
        for _ in range(20)
        for store in stores
    ]
    granted = sum(found.granted for [found] in await asyncio.gather(*takes))
    assert granted == 50


async def test_places_are_held_up_to_the_limit(stores: list[CounterStore]):
    """Each holder has its own, and no more than the others leave."""
    hold = Hold(key="a", limit=5, in_use=0, slots=3)
    [first] = await stores[0].hold("one", [hold], 30)
    [second] = await stores[1].hold("two", [hold], 30)
    assert (first.slots, first.others) == (3, 0)
    assert (second.slots, second.others) == (2, 3)


async def test_asking_again_replaces_what_was_held(stores: list[CounterStore]):
    """A holder that lets go of places leaves them to the others, at once."""
    await stores[0].hold("one", [Hold(key="a", limit=5, in_use=0, slots=5)], 30)
    [gone] = await stores[0].hold("one", [Hold(key="a", limit=5, in_use=0, slots=0)], 30)
    [found] = await stores[1].hold("two", [Hold(key="a", limit=5, in_use=0, slots=5)], 30)
    assert (gone.slots, found.slots) == (0, 5)


async def test_places_in_use_are_never_taken_away(stores: list[CounterStore]):
    """Requests that run go on, also where the limit was lowered meanwhile."""
    await stores[0].hold("one", [Hold(key="a", limit=5, in_use=0, slots=5)], 30)
    [found] = await stores[1].hold("two", [Hold(key="a", limit=5, in_use=2, slots=4)], 30)
    assert found.slots == 2


@pytest.mark.alone
async def test_the_places_of_the_dead_are_free(stores: list[CounterStore]):
    """Who doesn't ask again in time has nothing any more."""
    await stores[0].hold("one", [Hold(key="a", limit=5, in_use=5, slots=5)], 1.0)
    hold = Hold(key="a", limit=5, in_use=0, slots=2)
    assert (await stores[1].hold("two", [hold], 30))[0].slots == 0
    await asyncio.sleep(1.2)
    assert (await stores[1].hold("two", [hold], 30))[0].slots == 2


async def test_all_at_once_hold_no_more_than_the_limit(stores: list[CounterStore]):
    """Thirty holders at one moment share what there is."""
    holds = [
        store.hold(f"{number}-{index}", [Hold(key="a", limit=7, in_use=0, slots=1)], 30)
        for number in range(10)
        for index, store in enumerate(stores)
    ]
    assert sum(found.slots for [found] in await asyncio.gather(*holds)) == 7


async def test_old_counters_are_forgotten(stores: list[CounterStore], kind: str):
    """What no limit needs any more is removed, and what is needed stays."""
    await stores[0].take([Take(key="old", limit=5, seconds=None, amount=5, lifetime=-1.0)])
    await stores[0].take([Take(key="new", limit=5, seconds=None, amount=5)])
    done = await stores[0].tidy()
    assert done == (0 if kind == "redis" else 1)
    [found] = await stores[1].take([Take(key="new", limit=5, seconds=None, amount=5, least=1)])
    assert found.granted == 0
    [found] = await stores[1].take([Take(key="old", limit=5, seconds=None, amount=5, least=1)])
    assert found.granted == 5


async def test_a_store_that_is_away_says_so():
    """Redis that refuses connections is unavailable, without its address or password."""
    store = counters_for(
        f"redis://:secret@127.0.0.1:{free_port()}/0", open_database("sqlite+aiosqlite://")
    )
    with pytest.raises(UpstreamUnavailable) as raised:
        await store.take([per_hour("a", amount=1)])
    await store.aclose()
    assert "secret" not in raised.value.message
    assert "127.0.0.1" not in raised.value.message
