"""Which of a model's servers gets a request, and what happens when one fails."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.settings.section import PositiveFloat, PositiveInt, Section

Strategy = Literal["least_loaded", "weighted"]


class RoutingSettings(Section, frozen=True):
    """How the backends of a model share its requests.

    ``RoutingSettings(affinity=["header:x-session-id", "prefix"])``
    """

    strategy: Strategy = "least_loaded"
    """Where no affinity decides: the less busy of two that are drawn by weight, or the first."""
    affinity: tuple[str, ...] = ("prompt_cache_key",)
    """What makes requests belong together, so that they go to the same backend; the first of these
    that a request has: ``prompt_cache_key``, ``user``, ``header:NAME``, ``prefix``."""
    prefix_bytes: PositiveInt = 4096
    """How much of the leading messages counts for ``prefix``."""
    load_bound: Annotated[float, Meta(ge=1)] = 1.25
    """A backend keeps what belongs to it up to so many times its fair share of requests in
    flight."""
    free_load: PositiveInt = 8
    """Requests in flight that a backend may have whatever its share is."""
    max_attempts: PositiveInt = 3
    """Backends that are asked for one request."""
    retry_share: Annotated[float, Meta(ge=0)] = 0.2
    """Retries for each request of a model, in the long run; those that no server has seen are
    free."""
    retry_reserve: Annotated[int, Meta(ge=0)] = 100
    """Retries beyond that, for a burst; one comes back each second."""
    breaker_failures: PositiveInt = 5
    """Failures in a row after which a backend is left alone; one is enough where no connection
    came about."""
    breaker_seconds: PositiveFloat = 1.0
    """How long, the first time; doubled each time that the probe after it fails."""
    breaker_max_seconds: PositiveFloat = 30.0
    probe_timeout_seconds: PositiveFloat = 10.0
    """How long a probe's answer may take."""
    load_interval_seconds: PositiveFloat = 5.0
    """How often a vLLM that shares a model with others is asked for its queue."""
    served_by_header: bool = False
    """Answers carry ``x-understudy-backend``, the server's address."""


class ModelRoutingSettings(Section, frozen=True):
    """How the backends of one model share its requests, where it differs from ``routing``."""

    strategy: Strategy | None = None
    affinity: tuple[str, ...] | None = None
    prefix_bytes: PositiveInt | None = None
    load_bound: Annotated[float, Meta(ge=1)] | None = None
    free_load: PositiveInt | None = None
    max_attempts: PositiveInt | None = None

    def over(self, general: RoutingSettings) -> RoutingSettings:
        """These, and the general ones where none is given here."""
        own = {name: getattr(self, name) for name in self.__struct_fields__}
        return RoutingSettings(
            **{name: getattr(general, name) for name in general.__struct_fields__}
            | {name: value for name, value in own.items() if value is not None}
        )
