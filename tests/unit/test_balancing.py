"""Which of a model's backends a request goes to."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import (
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.routing.affinity import affinity_key, hash_of, rank
from gateway.routing.attempts import NOTHING_LEARNT, Attempts
from gateway.routing.balancer import choose
from gateway.routing.breaker import Breaker
from gateway.routing.catalog import Backend, Model
from gateway.routing.load import Load
from gateway.routing.observer import Observer
from gateway.routing.retry_budget import RetryBudget
from gateway.settings import ModelRoutingSettings, RoutingSettings


def backend(name: str, weight: int = 1, priority: int = 0) -> Backend:
    return Backend(
        server=cast("Any", SimpleNamespace(name=name)),
        model="m",
        weight=weight,
        priority=priority,
        breaker=Breaker(RoutingSettings()),
        seed=hash_of(name.encode()),
    )


def model(*backends: Backend, **routing: Any) -> Model:
    found = RoutingSettings(**routing)
    return Model(id="m", backends=backends, routing=found, budget=RetryBudget(found))


def chosen(model: Model, count: int = 1000, key: int | None = None) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        one = choose(model, (), key)
        assert one is not None
        found[one.server.name] += 1
    return found


# -- without affinity ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["weighted", "least_loaded"])
def test_weights_are_shares_where_nothing_is_busy(strategy):
    """Three times the weight is three times the requests."""
    shares = chosen(model(backend("a", 3), backend("b", 1), strategy=strategy), 2000)
    assert 1350 < shares["a"] < 1650


def test_the_less_busy_one_is_taken():
    """By its weight: four requests on a server of weight 4 are as one on a server of weight 1."""
    a, b = backend("a", 4), backend("b", 1)
    a.load.in_flight, b.load.in_flight = 8, 1
    assert chosen(model(a, b)) == {"b": 1000}
    a.load.in_flight = 2
    assert chosen(model(a, b)) == {"a": 1000}


def test_requests_in_flight_spread_evenly():
    """A thousand at once on four servers: nobody has many more than the others."""
    backends = [backend(name) for name in "abcd"]
    shared = model(*backends)
    for _ in range(1000):
        one = choose(shared, (), None)
        assert one is not None
        one.load.in_flight += 1
    loads = [one.load.in_flight for one in backends]
    assert max(loads) - min(loads) <= 10


def test_what_a_server_says_of_its_queue_counts():
    """Other replicas keep it busy, which this one can't know by itself."""
    load = Load()
    load.in_flight = 2
    load.told(40)
    assert load.estimate == 40
    load.in_flight = 5
    assert load.estimate == 43
    load.in_flight = 0
    load.told(None)
    assert load.estimate == 0
    load.in_flight = 3
    load.told(1)  # older than what is in flight now
    assert load.estimate == 3


def test_a_higher_tier_is_left_only_when_nothing_of_it_is_up():
    """A spare is a spare."""
    a, b, spare = backend("a"), backend("b"), backend("spare", 100, priority=1)
    tiers = model(spare, a, b)
    assert set(chosen(tiers)) == {"a", "b"}
    a.breaker.failed("unreachable")
    assert chosen(tiers) == {"b": 1000}
    b.load.down = True
    assert chosen(tiers) == {"spare": 1000}
    b.load.down = False
    assert chosen(tiers) == {"b": 1000}


def test_where_nothing_is_up_the_soonest_one_back_is_asked():
    """A first attempt is always made: one that is set aside before one that is broken."""
    a, b = backend("a"), backend("b")
    a.breaker.failed("unreachable")
    b.breaker.failed("overloaded", retry_after=5)
    assert chosen(model(a, b), 10) == {"b": 10}


def test_servers_that_are_all_too_busy_to_list_models_share_the_load():
    """Discovery may get no answer from any of them; that must not send all to one."""
    backends = [backend(name) for name in "abc"]
    for one in backends:
        one.load.down = True
    assert len(chosen(model(*backends), 100)) == 3


def test_nobody_is_sent_to_a_server_that_hangs():
    """Not even where there is no other."""
    a, b = backend("a"), backend("b")
    for one in (a, b):
        one.breaker.failed("slow", since=0)
    assert choose(model(a, b), (), None) is None
    with pytest.raises(UpstreamUnavailable) as raised:
        attempts(model(a, b)).begin()
    assert raised.value.retry_after == 1


# -- affinity --------------------------------------------------------------------------------------


def key(body: dict[str, Any], headers: Any = (), **routing: Any) -> int | None:
    return affinity_key(RoutingSettings(**routing), json.dumps(body).encode(), headers)


def test_the_first_hint_that_a_request_has_counts():
    """In the order of the setting; without any of them there is none."""
    order = {"affinity": ("header:X-Session", "prompt_cache_key", "user")}
    session = [(b"x-session", b"s1")]
    assert key({"prompt_cache_key": "k", "user": "u"}, session, **order) == hash_of(b"s1")
    assert key({"prompt_cache_key": "k", "user": "u"}, **order) == hash_of(b"k")
    assert key({"user": "u", "messages": [{"role": "user"}]}, **order) == hash_of(b"u")
    assert key({"model": "m"}, **order) is None
    assert key({"user": "u"}) is None  # not asked for by default


@pytest.mark.parametrize("odd", [5, None, [], {"a": 1}, "", True])
def test_an_odd_hint_is_none(odd):
    """To refuse it is for the model server."""
    affinity = {"affinity": ("prompt_cache_key", "user", "prefix")}
    body = {"prompt_cache_key": odd, "user": odd, "messages": odd}
    assert key(body, **affinity) is None


def test_all_turns_of_a_conversation_have_one_prefix():
    """And another conversation has another, though the instructions are the same."""
    prefix = {"affinity": ("prefix",)}
    begun = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    later = [*begun, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Why?"}]
    other = [begun[0], {"role": "user", "content": "Bye"}]
    assert key({"messages": begun}, **prefix) == key({"messages": later}, **prefix)
    assert key({"messages": begun}, **prefix) != key({"messages": other}, **prefix)
    assert key({"messages": begun, "system": "x"}, **prefix) != key({"messages": begun}, **prefix)


def test_long_instructions_are_the_prefix():
    """What is said after ``prefix_bytes`` doesn't count."""
    system = {"role": "system", "content": "x" * 500}
    one = {"messages": [system, {"role": "user", "content": "a"}]}
    two = {"messages": [system, {"role": "user", "content": "b"}]}
    short = {"affinity": ("prefix",), "prefix_bytes": 200}
    assert key(one, **short) == key(two, **short)
    assert key(one, affinity=("prefix",)) != key(two, affinity=("prefix",))
    assert key({"prompt": "y" * 300 + "a"}, **short) == key({"prompt": "y" * 300 + "b"}, **short)


@given(st.binary(max_size=300))
def test_no_body_breaks_the_key(body):
    """Whatever bytes come, there is a key or there is none."""
    affinity = RoutingSettings(affinity=("prompt_cache_key", "user", "header:x", "prefix"))
    for junk in (body, b'{"user": ' + body, b'{"messages": ' + body + b"}"):
        found = affinity_key(affinity, junk, [])
        assert found is None or 0 <= found < 1 << 64


def owner(backends: list[Backend], key: int) -> str:
    best = max(backends, key=lambda one: rank(key, one.seed, one.weight))
    return best.server.name


KEYS = [hash_of(b"%d" % n) for n in range(8000)]


def test_keys_are_shared_by_weight():
    """Within a few hundredths."""
    backends = [backend("a", 1), backend("b", 1), backend("c", 2), backend("d", 4)]
    shares = Counter(owner(backends, one) for one in KEYS)
    for one in backends:
        assert abs(shares[one.server.name] / len(KEYS) - one.weight / 8) < 0.02


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1), st.integers(1, 9)), min_size=2, max_size=6,
             unique_by=lambda pair: pair[0]),
    st.data(),
)  # fmt: skip
def test_when_a_backend_goes_only_its_own_keys_move(pairs, data):
    """And when it comes back they return: nobody else's cache gets cold."""
    backends = [backend(name, weight) for name, weight in pairs]
    gone = data.draw(st.sampled_from(backends))
    left = [one for one in backends if one is not gone]
    for one in KEYS[:500]:
        before = owner(backends, one)
        assert owner(left, one) == before or before == gone.server.name


@pytest.mark.parametrize("key", [0, 1, (1 << 64) - 1])
@pytest.mark.parametrize("seed", [0, (1 << 64) - 1])
def test_every_key_has_a_rank(key, seed):
    """At the edges of the numbers too."""
    assert rank(key, seed, 1) > 0


def test_a_key_stays_with_its_backend_while_that_is_up():
    """And goes to one other, always the same one, while it isn't."""
    backends = [backend(name) for name in "abcd"]
    shared = model(*backends)
    [(first, _)] = chosen(shared, 100, KEYS[0]).items()
    own = next(one for one in backends if one.server.name == first)
    own.breaker.failed("unreachable")
    [(second, _)] = chosen(shared, 100, KEYS[0]).items()
    assert second != first
    own.breaker.succeeded()
    assert chosen(shared, 100, KEYS[0]) == {first: 100}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=8),
    st.floats(1.0, 3.0),
    st.integers(1, 20),
    st.integers(1, 400),
)
def test_one_hot_key_can_t_overload_a_backend(weights, bound, free, count):
    """Nobody has more than its share times the bound; what is more goes to the next in order."""
    backends = [backend(f"b{n}", weight) for n, weight in enumerate(weights)]
    shared = model(*backends, load_bound=bound, free_load=free)
    for done in range(1, count + 1):
        one = choose(shared, (), KEYS[0])
        assert one is not None
        one.load.in_flight += 1
        share = bound * done * one.weight / sum(weights)
        assert one.load.in_flight <= max(share + 1, free)


def test_a_model_s_own_settings_come_first():
    """What it leaves out is as for all."""
    general = RoutingSettings(strategy="weighted", max_attempts=7)
    own = ModelRoutingSettings(affinity=("prefix",), load_bound=2.0).over(general)
    assert own == RoutingSettings(
        strategy="weighted", max_attempts=7, affinity=("prefix",), load_bound=2.0
    )


# -- attempts and their budget ---------------------------------------------------------------------


class Heard(Observer):
    def __init__(self) -> None:
        self.events: list[str] = []

    def retried(self, model: str, error_type: str) -> None:
        self.events.append(error_type)

    def retry_refused(self, model: str) -> None:
        self.events.append("refused")


def attempts(model: Model) -> Attempts:
    return Attempts(model, b"{}", [])


def test_what_is_in_flight_is_counted():
    """From the beginning of an attempt to its end, however it ends."""
    a = backend("a")
    for outcome in (None, NOTHING_LEARNT, UpstreamError("x"), InvalidRequest("x")):
        tried = attempts(model(a))
        tried.begin()
        assert a.load.in_flight == 1
        tried.end(outcome)
        assert a.load.in_flight == 0


def test_another_backend_is_asked_after_what_another_may_do_better():
    """After a refusal to connect, an overload or a failure; not after a mistake or a time limit."""
    for error, goes_on in (
        (UpstreamUnreachable("x"), True),
        (UpstreamUnavailable("x"), True),
        (UpstreamError("x"), True),
        (UpstreamTimeout("x"), False),
        (InvalidRequest("x"), False),
    ):
        tried = attempts(model(backend("a"), backend("b")))
        first = tried.begin()
        assert tried.may_go_on(error) is goes_on, error
        tried.end(error)
        if goes_on:
            assert tried.begin() is not first
            assert not tried.may_go_on(error)
            tried.end(error)


def test_the_number_of_attempts_is_bounded():
    """``max_attempts`` counts the first one too."""
    tried = attempts(model(*(backend(name) for name in "abcdef"), max_attempts=3))
    for goes_on in (True, True, False):
        tried.begin()
        assert tried.may_go_on(UpstreamUnreachable("x")) is goes_on
        tried.end(UpstreamUnreachable("x"))


def test_a_retry_never_waits_for_a_backend_that_is_known_to_hang():
    """Its error is told instead of an hour's silence."""
    a, b = backend("a"), backend("b", priority=1)
    b.breaker.failed("slow", since=0)
    tried = attempts(model(a, b))
    assert tried.begin() is a
    assert not tried.may_go_on(UpstreamError("x"))
    tried.end(UpstreamError("x"))


def test_retries_are_bounded_by_the_budget():
    """A reserve, and then one for each five requests; who is refused one gets the first error."""
    heard = Heard()
    shared = model(backend("a"), backend("b"), retry_share=0.2, retry_reserve=10)
    shared.observer = heard
    clock = SimpleNamespace(now=0.0)
    shared.budget = RetryBudget(shared.routing, clock=lambda: clock.now)
    done = 0
    for _ in range(200):
        tried = attempts(shared)
        tried.begin()
        done += tried.may_go_on(UpstreamError("x"))
        tried.end(NOTHING_LEARNT)
    assert 45 <= done <= 52
    assert heard.events.count("refused") == 200 - done
    clock.now += 3
    assert [shared.budget.spend() for _ in range(4)].count(True) >= 3


def test_what_no_server_has_seen_is_free():
    """When a server dies or our own connections to it are all in use, everything goes on to the
    others."""
    shared = model(backend("a"), backend("b"), retry_share=0.0, retry_reserve=0)
    full = UpstreamUnavailable("x", code="too_many_connections")
    for error in [UpstreamUnreachable("x"), full] * 50:
        tried = attempts(shared)
        tried.begin()
        assert tried.may_go_on(error)
        tried.end(NOTHING_LEARNT)
    tried = attempts(shared)
    tried.begin()
    assert not tried.may_go_on(UpstreamError("x"))
    tried.end(NOTHING_LEARNT)


def test_a_caller_s_mistake_shows_that_the_backend_works():
    """It closes a breaker as a good answer does; a caller's leaving changes nothing."""
    a = backend("a")
    a.breaker.failed("unreachable")
    for outcome, state in ((NOTHING_LEARNT, "open"), (InvalidRequest("x"), "closed")):
        tried = attempts(model(a))
        tried.begin()
        tried.end(outcome)
        assert a.breaker.state == state
