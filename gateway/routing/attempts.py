"""One request's way through a model's backends.

    attempts = Attempts(model, body, headers)
    while True:
        backend = attempts.begin()
        outcome = NOTHING_LEARNT
        try:
            await ask(backend)
            outcome = None
            return
        except GatewayError as error:
            outcome = error
            if begun_to_answer or not attempts.may_go_on(error):
                raise
        finally:
            attempts.end(outcome)

Another backend is asked only while the caller has got nothing, never for the caller's own mistake
and never after a time limit: a second server wouldn't be quicker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from gateway.errors import GatewayError, UpstreamUnavailable
from gateway.routing.affinity import affinity_key
from gateway.routing.balancer import choose
from gateway.routing.breaker import reason_of
from gateway.routing.catalog import Backend, Model

__all__ = ["NOTHING_LEARNT", "Attempts", "Outcome"]

_ELSEWHERE = frozenset({429, 500, 502, 503})
"""What one server says that another may not."""


_POOL_IS_FULL = "too_many_connections"
"""Of our own pool: the server has not been asked, and works."""


class _NothingLearnt:
    """The caller left, or the gateway ends: it says nothing of the backend."""


NOTHING_LEARNT = _NothingLearnt()

Outcome = GatewayError | _NothingLearnt | None
"""How an attempt ended: the error that it failed with, ``None`` where it is a good answer."""


class Attempts:
    """Chooses backends, counts what is in flight and tells the breakers how it went.

    ``body`` and ``headers`` are looked into only where the model has several backends.
    """

    __slots__ = (
        "_backend",
        "_body",
        "_headers",
        "_key",
        "_model",
        "_next",
        "_since",
        "count",
        "tried",
    )

    def __init__(self, model: Model, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._model = model
        self._body = body
        self._headers = headers
        self._key: int | None = None
        backends = model.backends
        self._next: Backend | None = backends[0] if len(backends) == 1 else None
        self.tried: tuple[Backend, ...] = ()
        self.count = 0
        """How many attempts have begun."""

    def begin(self) -> Backend:
        """The backend to ask now; :meth:`end` must follow.

        Raises ``UpstreamUnavailable`` where all of them are known to hang.
        """
        backend = self._next or self._first()
        self.count += 1
        self._backend = backend
        self._since = backend.breaker.successes
        backend.load.in_flight += 1
        return backend

    def end(self, outcome: Outcome) -> None:
        """The attempt is over."""
        backend = self._backend
        backend.load.in_flight -= 1
        if outcome is None:
            backend.breaker.succeeded()
            backend.load.down = False
        elif isinstance(outcome, GatewayError):
            self._judge(backend, outcome)

    def may_go_on(self, error: GatewayError) -> bool:
        """Whether, after this error, another backend is to be asked; then :meth:`begin` has it."""
        model = self._model
        unsent = error.nothing_sent or error.code == _POOL_IS_FULL
        if len(model.backends) == 1 or not (unsent or error.status in _ELSEWHERE):
            return False
        self.tried = (*self.tried, self._backend)
        if self.count >= model.routing.max_attempts:
            return False
        self._next = choose(model, self.tried, self._key)
        if self._next is None:
            return False
        # What no server has seen is no more work for any of them than it would have been anyway.
        if not unsent and not model.budget.spend():
            model.observer.retry_refused(model.id)
            return False
        model.observer.retried(model.id, error.error_type)
        return True

    def _first(self) -> Backend:
        model = self._model
        model.budget.requested()
        self._key = affinity_key(model.routing, self._body, self._headers)
        backend = choose(model, (), self._key)
        if backend is None:
            soonest = min(one.breaker.back_at for one in model.backends) - time.monotonic()
            raise UpstreamUnavailable(
                f"No server of the model '{model.id}' answers now. Try again shortly.",
                retry_after=max(1, math.ceil(soonest)),
            )
        return backend

    def _judge(self, backend: Backend, error: GatewayError) -> None:
        reason = reason_of(error)
        if reason is not None:
            backend.breaker.failed(reason, retry_after=error.retry_after, since=self._since)
        elif error.status < 500 and error.status != 499:
            backend.breaker.succeeded()  # it works well enough to tell a caller of a mistake
