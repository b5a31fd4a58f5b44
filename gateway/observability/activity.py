"""A step of a request or of a job: a span, and the parent of what happens within it.

    async def search(self, principal, activity, store, query):
        with activity.step(f"retrieval {store.id}") as step:
            vector = await self._embedder.embed(step, store.embedding_model, [query])
            step.attributes["gen_ai.request.top_k"] = 10

It is handed on as an argument; nothing is kept in context variables.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from gateway.observability import semconv
from gateway.observability.call import ModelCall
from gateway.observability.trace_context import format_traceparent, parse_traceparent

if TYPE_CHECKING:
    from gateway.observability.exchange import Exchange
    from gateway.observability.telemetry import Telemetry
    from gateway.observability.tracing import Trace
    from gateway.relay.operation import Operation
    from gateway.routing.catalog import Backend

__all__ = ["Activity"]


class Activity:
    """``trace`` is ``None`` where nothing is traced; ``span_id`` is that of this step's span.

    What is put into ``attributes`` before the step ends is on its span.
    """

    __slots__ = ("_clock", "_headers", "_telemetry", "attributes", "span_id", "trace")

    def __init__(
        self,
        telemetry: Telemetry,
        trace: Trace | None,
        span_id: int,
        clock: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._headers = headers
        self.trace = trace
        self.span_id = span_id
        self.attributes: dict[str, Any] = {}

    @classmethod
    def of_request(cls, exchange: Exchange) -> Activity:
        """The whole of a request; its span is the SERVER span, which telemetry writes."""
        assert exchange.telemetry is not None  # the edge has begun the exchange
        span_id = exchange.trace.span_id if exchange.trace is not None else 0
        return cls(exchange.telemetry, exchange.trace, span_id, exchange.clock, exchange.headers)

    @classmethod
    @contextmanager
    def of_job(
        cls,
        telemetry: Telemetry,
        name: str,
        *,
        caused_by: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Iterator[Activity]:
        """The root of a trace of its own, linked to the request that asked for the work.

        ``caused_by`` is that request's :meth:`traceparent`.
        """
        link = parse_traceparent(caused_by.encode("ascii")) if caused_by else None
        trace = telemetry.tracing.begin(name, None)
        clock = time.time_ns() - time.perf_counter_ns()
        activity = cls(telemetry, trace, trace.span_id if trace is not None else 0, clock)
        activity.attributes.update(attributes or {})
        started = time.perf_counter_ns()
        error: str | None = None
        try:
            yield activity
        except BaseException as raised:
            error = _error_type(raised)
            raise
        finally:
            if trace is not None and trace.sampled:
                telemetry.tracing.record(
                    trace,
                    name=name,
                    kind=SpanKind.CONSUMER,
                    span_id=activity.span_id,
                    parent_id=None,
                    attributes=activity.attributes,
                    started=started + clock,
                    ended=time.perf_counter_ns() + clock,
                    error=error,
                    link=link,
                )

    @contextmanager
    def step(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
    ) -> Iterator[Activity]:
        """A span below this one, from now until the block ends; failed when the block raises."""
        span_id = random.getrandbits(64) or 1 if self.trace is not None else 0
        child = Activity(self._telemetry, self.trace, span_id, self._clock, self._headers)
        child.attributes.update(attributes or {})
        started = time.perf_counter_ns()
        error: str | None = None
        try:
            yield child
        except BaseException as raised:
            error = _error_type(raised)
            child.attributes[semconv.ERROR_TYPE] = error
            raise
        finally:
            trace = self.trace
            if trace is not None and trace.sampled:
                self._telemetry.tracing.record(
                    trace,
                    name=name,
                    kind=kind,
                    span_id=span_id,
                    parent_id=self.span_id,
                    attributes=child.attributes,
                    started=started + self._clock,
                    ended=time.perf_counter_ns() + self._clock,
                    error=error,
                )

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Those of the caller whose request it is, if it is one."""
        return self._headers

    @property
    def keeps_content(self) -> bool:
        """Whether attributes may say what was asked and answered, which is opt-in."""
        sampled = self.trace is not None and self.trace.sampled
        return sampled and self._telemetry.tracing.content_on_spans

    def traceparent(self) -> str | None:
        """This step as a ``traceparent``, to be stored with a job; ``None`` where not traced."""
        if self.trace is None:
            return None
        header = format_traceparent(self.trace.trace_id, self.span_id, sampled=self.trace.sampled)
        return header.decode("ascii")

    def trace_headers(self) -> dict[str, str]:
        """This step as the parent of what another server does; empty where not traced."""
        parent = self.traceparent()
        if parent is None:
            return {}
        headers = {"traceparent": parent}
        if self.trace is not None and self.trace.state:
            headers["tracestate"] = self.trace.state.to_header()
        return headers

    def begin_call(self, operation: Operation[Any], request: Any, backend: Backend) -> ModelCall:
        """A call to a model server starts now; :meth:`end_call` must follow."""
        span_id = random.getrandbits(64) or 1 if self.trace is not None else 0
        return ModelCall(operation, request.model, backend, request, span_id)

    def end_call(self, call: ModelCall) -> None:
        self._telemetry.call_ended(call, self.trace, self.span_id, self._clock)

    def upstream_headers(self, call: ModelCall) -> list[tuple[bytes, bytes]]:
        """The headers of a call to a model server: an id, the call's span as parent, and the
        caller's own as far as that server is to have them.
        """
        headers = [(b"x-request-id", b"%032x" % random.getrandbits(128))]
        if self.trace is not None:
            header = format_traceparent(
                self.trace.trace_id, call.span_id, sampled=self.trace.sampled
            )
            headers.append((b"traceparent", header))
            if self.trace.state:
                headers.append((b"tracestate", self.trace.state.to_header().encode("latin-1")))
        forwards = call.backend.server.forwards
        headers += [header for header in self._headers if forwards(header[0])]
        return headers


def _error_type(raised: BaseException) -> str:
    found = getattr(raised, "error_type", None)  # a GatewayError's, or a port's failure's
    return found if isinstance(found, str) else type(raised).__name__
