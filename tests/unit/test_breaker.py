"""A backend that fails is left alone, probed, and used again when it works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.routing.breaker import Breaker, reason_of
from gateway.settings import RoutingSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A breaker with a clock that is turned by hand and no jitter."""

    def __init__(self, **settings) -> None:
        self.clock = Clock()
        self.states: list[str] = []
        self.ejected: list[str] = []
        self.breaker = Breaker(
            RoutingSettings(**settings),
            clock=self.clock,
            jitter=lambda: 1.0,
            changed=self.states.append,
            ejected=self.ejected.append,
        )

    @property
    def allows(self) -> bool:
        return self.breaker.allows(self.clock.now)

    def pass_by(self, seconds: float) -> None:
        self.clock.now += seconds


def test_it_opens_after_failures_in_a_row():
    """And not before; a good answer in between starts the count anew."""
    rig = Rig(breaker_failures=3)
    for _ in range(5):
        rig.breaker.failed("failing")
        rig.breaker.failed("failing")
        rig.breaker.succeeded()
    assert rig.allows
    for _ in range(3):
        assert rig.allows
        rig.breaker.failed("failing")
    assert not rig.allows
    assert (rig.states, rig.ejected) == (["open"], ["failing"])


def test_no_connection_opens_it_at_once():
    """Nothing about that is doubtful."""
    rig = Rig()
    rig.breaker.failed("unreachable")
    assert not rig.allows


def test_a_hang_opens_it_at_once_and_a_slow_answer_does_not():
    """The difference is whether anything else worked there meanwhile."""
    rig = Rig()
    before = rig.breaker.successes
    rig.breaker.succeeded()
    rig.breaker.failed("slow", since=before)
    assert rig.allows
    rig.breaker.failed("slow", since=rig.breaker.successes)
    assert not rig.allows
    assert rig.breaker.reason == "slow"


def test_time_alone_lets_no_caller_through():
    """The gateway probes by itself, one probe at a time."""
    rig = Rig(breaker_seconds=1)
    rig.breaker.failed("unreachable")
    assert not rig.breaker.probe_is_due()
    rig.pass_by(1.1)
    assert rig.breaker.probe_is_due()
    assert not rig.allows
    rig.breaker.begin_probe()
    assert (rig.breaker.state, rig.breaker.probe_is_due(), rig.allows) == (
        "half_open",
        False,
        False,
    )
    rig.breaker.succeeded()
    assert rig.allows
    assert rig.states == ["open", "half_open", "closed"]


def test_each_failed_probe_doubles_the_wait_up_to_a_bound():
    """And a good answer makes it short again."""
    rig = Rig(breaker_seconds=1, breaker_max_seconds=5)
    rig.breaker.failed("unreachable")
    for seconds in (1, 2, 4, 5, 5):
        rig.pass_by(seconds - 0.01)
        assert not rig.breaker.probe_is_due(), seconds
        rig.pass_by(0.02)
        assert rig.breaker.probe_is_due(), seconds
        rig.breaker.begin_probe()
        rig.breaker.probe_failed("unreachable")
    rig.breaker.succeeded()
    rig.breaker.failed("unreachable")
    rig.pass_by(1.01)
    assert rig.breaker.probe_is_due()
    assert rig.ejected == ["unreachable", "unreachable"]


def test_the_wait_is_never_longer_for_jitter():
    """Replicas probe at different moments, all within the bound."""
    waits = set()
    for luck in (0.0, 0.3, 0.7, 1.0):
        clock = Clock()
        breaker = Breaker(RoutingSettings(breaker_seconds=8), clock=clock, jitter=lambda x=luck: x)
        breaker.failed("unreachable")
        waits.add(breaker.back_at - clock.now)
    assert len(waits) == 4
    assert all(6 <= wait <= 8 for wait in waits)


def test_failures_of_what_was_sent_before_change_nothing():
    """A hundred requests that die together are one death."""
    rig = Rig(breaker_seconds=1)
    for _ in range(100):
        rig.breaker.failed("unreachable")
    rig.pass_by(1.01)
    assert rig.breaker.probe_is_due()


def test_an_overload_sets_it_aside_for_as_long_as_it_asks():
    """It isn't broken, so nothing is probed; it is back when the time is up."""
    rig = Rig()
    rig.breaker.failed("overloaded", retry_after=7)
    rig.breaker.failed("overloaded", retry_after=3)
    assert rig.breaker.is_aside(rig.clock.now)
    assert rig.ejected == ["overloaded"]
    rig.pass_by(6.9)
    assert not rig.allows
    rig.pass_by(0.2)
    assert rig.allows
    assert rig.states == []


def test_no_server_can_send_itself_away_for_hours():
    """What it asks for is believed up to a minute."""
    rig = Rig()
    rig.breaker.failed("overloaded", retry_after=86400)
    rig.pass_by(60.1)
    assert rig.allows


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.UpstreamUnreachable("x"), "unreachable"),
        (errors.UpstreamConnectTimeout("x"), "unreachable"),
        (errors.UpstreamError("x", code="upstream_tls_failed"), "unreachable"),
        (errors.RateLimited("x"), "overloaded"),
        (errors.UpstreamUnavailable("x"), "overloaded"),
        (errors.UpstreamUnavailable("x", code="too_many_connections"), None),
        (errors.UpstreamTimeout("x"), "slow"),
        (errors.UpstreamTotalTimeout("x"), None),
        (errors.UpstreamError("x"), "failing"),
        (errors.UpstreamError("x", code="upstream_disconnected"), "failing"),
        (errors.GatewayError("x"), "failing"),
        (errors.InvalidRequest("x"), None),
        (errors.ModelNotFound("x"), None),
        (errors.AuthenticationFailed("x"), None),
        (errors.Conflict("x"), None),
        (errors.UnprocessableRequest("x"), None),
        (errors.ClientDisconnected("x"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_an_error_says_of_a_backend(error, reason):
    """A caller's mistake, a caller's leaving and a limit of ours say nothing against it."""
    assert reason_of(error) == reason


STEPS = st.lists(
    st.sampled_from(["ok", "failing", "slow", "unreachable", "overloaded", "probe", "wait"]),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_it_can_always_come_back(steps):
    """From any state a probe becomes due within the bound, and its success lets callers through."""
    rig = Rig(breaker_max_seconds=30)
    for step in steps:
        match step:
            case "ok":
                rig.breaker.succeeded()
            case "wait":
                rig.pass_by(0.7)
            case "probe":
                if rig.breaker.probe_is_due():
                    rig.breaker.begin_probe()
                    assert not rig.allows
                    rig.breaker.probe_failed("failing")
            case _:
                rig.breaker.failed(step, since=rig.breaker.successes)
    rig.pass_by(60.1)
    if not rig.allows:
        assert rig.breaker.probe_is_due()
        rig.breaker.begin_probe()
        rig.breaker.succeeded()
    assert rig.allows
