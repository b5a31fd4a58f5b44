"""Spans: one SERVER span for a request, one CLIENT span for each call to a model server.

Both are written down once, when they are over, straight into the SDK's span processor. That keeps
the SDK's exporters, samplers, resource and ``OTEL_*`` variables, and leaves out the live span
objects (a lock and a cleaning pass for each attribute) that would cost more than the rest of the
relay together.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    Sampler,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway import __version__
from gateway.observability.trace_context import TraceContext

__all__ = ["Trace", "Tracing"]

FLUSH_SECONDS = 3.0
"""How long the end of the process may be held up by a collector that doesn't answer."""

_USUAL = frozenset({ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, DEFAULT_OFF})
"""What ``OTEL_TRACES_SAMPLER`` names, but for the samplers by ratio."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
_NO_PARENT = Context()
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("understudy", __version__)

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_ON_SPANS = {"true", "span_only", "span_and_event"}
_AS_EVENTS = {"event_only", "span_and_event"}


class Trace:
    """One request's place in its trace.

    ``span_id`` is that of the SERVER span; ``parent`` is the caller's context, if it sent one.
    """

    __slots__ = ("parent", "sampled", "span_id", "state", "trace_id")

    def __init__(
        self,
        trace_id: int,
        span_id: int,
        *,
        parent: TraceContext | None,
        sampled: bool,
        state: TraceState | None,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.sampled = sampled
        self.state = state

    def context(self) -> Context:
        """An OpenTelemetry context in which other instrumentations' spans become children."""
        span = SpanContext(
            self.trace_id,
            self.span_id,
            is_remote=False,
            trace_flags=_SAMPLED if self.sampled else _UNSAMPLED,
            trace_state=self.state,
        )
        return set_span_in_context(NonRecordingSpan(span))


class Tracing:
    """Decides what is recorded and hands it to the exporter.

    Without ``processors`` nothing is recorded, and a caller's context goes upstream as it came.
    """

    def __init__(
        self,
        *,
        provider: TracerProvider,
        processors: Sequence[SpanProcessor],
        exporters: Sequence[SpanExporter] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._provider = provider
        self._exporters = exporters
        self._finish = [processor.on_end for processor in processors]
        self.enabled = bool(processors)
        self._sampler: Sampler = provider.sampler
        self._resource = provider.resource
        capture = environment.get(CAPTURE_CONTENT, "").lower()
        self.content_on_spans = self.enabled and capture in _ON_SPANS
        self.content_as_events = self.enabled and capture in _AS_EVENTS

    @property
    def captures_content(self) -> bool:
        return self.content_on_spans or self.content_as_events

    def begin(self, name: str, parent: TraceContext | None) -> Trace | None:
        """The place of a new request; ``None`` where nothing is traced at all."""
        if not self.enabled:
            return None
        trace_id = parent.trace_id if parent is not None else random.getrandbits(128) or 1
        sampled, state = self._sample(name, trace_id, parent)
        span_id = random.getrandbits(64) or 1
        return Trace(trace_id, span_id, parent=parent, sampled=sampled, state=state)

    def _sample(
        self, name: str, trace_id: int, parent: TraceContext | None
    ) -> tuple[bool, TraceState | None]:
        """Ask the sampler. What the usual ones say is known without, and several times quicker."""
        sampler = self._sampler
        if sampler in _USUAL:
            state = _state_of(parent) if parent is not None else None
            if sampler is ALWAYS_ON or sampler is ALWAYS_OFF:
                return sampler is ALWAYS_ON, state
            return parent.sampled if parent is not None else sampler is DEFAULT_ON, state
        context = _context_of(parent) if parent is not None else _NO_PARENT
        result = sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        return result.decision is Decision.RECORD_AND_SAMPLE, result.trace_state

    def record(
        self,
        trace: Trace,
        *,
        name: str,
        kind: SpanKind,
        span_id: int,
        parent_id: int | None,
        attributes: dict[str, Any],
        started: int,
        ended: int,
        error: str | None = None,
        events: tuple[Any, ...] = (),
        link: TraceContext | None = None,
    ) -> None:
        """Write down a span that is over; times in nanoseconds since the epoch."""
        state = trace.state
        parent = None
        if parent_id is not None:
            remote = kind is SpanKind.SERVER
            parent = SpanContext(trace.trace_id, parent_id, remote, _SAMPLED, state)
        span = ReadableSpan(
            name=name,
            context=SpanContext(trace.trace_id, span_id, False, _SAMPLED, state),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            events=events,
            links=(_link_to(link),) if link is not None else (),
            kind=kind,
            status=_UNSET if error is None else Status(StatusCode.ERROR, error),
            start_time=started,
            end_time=ended,
            instrumentation_scope=_SCOPE,
        )
        for finish in self._finish:
            finish(span)

    def shutdown(self) -> None:
        """Export what is left; takes little more than ``FLUSH_SECONDS``.

        The SDK would wait for its queue for 30 s, which is all that Kubernetes gives a pod to end;
        an exporter that is shut down gives up at once.
        """
        timers = [threading.Timer(FLUSH_SECONDS, one.shutdown) for one in self._exporters]
        for timer in timers:
            timer.start()
        self._provider.shutdown()
        for timer in timers:
            timer.cancel()


def _link_to(context: TraceContext) -> Link:
    flags = _SAMPLED if context.sampled else _UNSAMPLED
    return Link(SpanContext(context.trace_id, context.span_id, True, flags))


def _state_of(parent: TraceContext) -> TraceState | None:
    if not parent.tracestate:
        return None
    return TraceState.from_header([parent.tracestate.decode("latin-1")])


def _context_of(parent: TraceContext) -> Context:
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                parent.trace_id,
                parent.span_id,
                is_remote=True,
                trace_flags=_SAMPLED if parent.sampled else _UNSAMPLED,
                trace_state=_state_of(parent),
            )
        ),
        _NO_PARENT,
    )
