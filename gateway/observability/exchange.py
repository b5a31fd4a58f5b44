"""One request and its answer, from the first byte in to the last byte out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError, UpstreamError
from gateway.identity.principal import NOBODY, Principal
from gateway.observability.call import ModelCall
from gateway.observability.trace_context import (
    TraceContext,
    format_traceparent,
    parse_traceparent,
)

if TYPE_CHECKING:
    from gateway.http.asgi import Scope
    from gateway.observability.telemetry import Telemetry
    from gateway.observability.tracing import Trace
    from gateway.relay.operation import Operation
    from gateway.routing.catalog import Backend

Headers = Sequence[tuple[bytes, bytes]]

OPENAI_VERSION = (b"openai-version", b"2020-10-01")
NOSNIFF = (b"x-content-type-options", b"nosniff")
"""A browser is to take an answer for what it says that it is, and never for a page."""
SERVED_BY = b"x-understudy-backend"


class Exchange:
    """What the edge, the relay and telemetry share of a request.

    ``headers`` are the caller's, less what proves who it is. ``status`` is 0 until the answer has
    begun. Times are ``perf_counter_ns``; ``clock`` is what must be added to them for nanoseconds
    since the epoch.
    """

    __slots__ = (
        "caller",
        "calls",
        "client_request_id",
        "clock",
        "error_type",
        "headers",
        "id",
        "limit_headers",
        "method",
        "model_id",
        "parent",
        "path",
        "reason",
        "route",
        "scheme",
        "served_by",
        "started",
        "status",
        "telemetry",
        "trace",
    )

    def __init__(self, scope: Scope) -> None:
        self.started = time.perf_counter_ns()
        self.clock = time.time_ns() - self.started
        self.id = b"%032x" % random.getrandbits(128)
        self.method = scope["method"]
        self.path = scope["path"]
        self.scheme = scope["scheme"]
        self.route = ""
        self.status = 0
        self.error_type: str | None = None
        self.reason: str | None = None
        self.calls: list[ModelCall] = []
        self.client_request_id: str | None = None
        self.served_by: str | None = None
        """The server to name in the answer's headers, where that is wanted."""
        self.trace: Trace | None = None
        self.telemetry: Telemetry | None = None
        self.model_id: str | None = None
        """The catalog's id of the model that is asked, on the data path."""
        self.limit_headers: Callable[[], list[tuple[bytes, bytes]]] | None = None
        """Gives what the answer says of the limits that apply to the request."""
        # Not the state itself, which holds this: a cycle for each request would be the garbage
        # collector's to find, and its pauses would be in the slowest answers.
        self.caller: Principal | None = scope.setdefault("state", {}).get("principal")
        """Who asks; ``None`` where no identity is asked for, or none was shown."""
        self.headers: Headers = scope["headers"]
        self.parent = self._read_headers()

    @property
    def request_id(self) -> bytes:
        """What the caller gets as ``x-request-id``; without the prefix it is the id at vLLM."""
        return b"req_" + self.id

    @property
    def principal(self) -> Principal:
        """On whose behalf it is done."""
        return self.caller or NOBODY

    @property
    def answered(self) -> bool:
        """Whether the status is out, so that an error can only be told in the stream."""
        return self.status != 0

    @property
    def sampled(self) -> bool:
        return self.trace is not None and self.trace.sampled

    def fail(self, error: GatewayError) -> None:
        """The request ends with this error."""
        self.error_type = error.error_type
        if isinstance(error, UpstreamError):
            self.reason = error.message

    def begin_call(self, operation: Operation[Any], request: Any, backend: Backend) -> ModelCall:
        """A call to a model server starts now."""
        span_id = random.getrandbits(64) or 1 if self.trace is not None else 0
        call = ModelCall(operation, request.model, backend, request, span_id)
        self.calls.append(call)
        return call

    def upstream_headers(self, call: ModelCall) -> list[tuple[bytes, bytes]]:
        """The headers that go to the model server: our id, the CLIENT span's context, and the
        caller's own as far as that server is to have them.
        """
        headers = [(b"x-request-id", self.id)]
        trace, parent = self.trace, self.parent
        if trace is not None:
            traceparent = format_traceparent(trace.trace_id, call.span_id, sampled=trace.sampled)
            headers.append((b"traceparent", traceparent))
            if trace.state:
                headers.append((b"tracestate", trace.state.to_header().encode("latin-1")))
        elif parent is not None:
            headers.append((b"traceparent", parent.header))
            if parent.tracestate:
                headers.append((b"tracestate", parent.tracestate))
        forwards = call.backend.server.forwards
        headers += [header for header in self.headers if forwards(header[0])]
        return headers

    def answer_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers that every answer has."""
        milliseconds = (time.perf_counter_ns() - self.started) // 1_000_000
        headers: tuple[tuple[bytes, bytes], ...] = (
            (b"x-request-id", self.request_id),
            (b"openai-processing-ms", b"%d" % milliseconds),
            OPENAI_VERSION,
            NOSNIFF,
        )
        if self.served_by is not None:
            headers = (*headers, (SERVED_BY, self.served_by.encode("ascii", "replace")))
        return headers if self.limit_headers is None else (*headers, *self.limit_headers())

    def log_fields(self) -> dict[str, Any]:
        """What ties a log line to the request and to its trace."""
        fields: dict[str, Any] = {"request_id": self.request_id.decode()}
        if self.trace is not None:
            fields["trace_id"] = f"{self.trace.trace_id:032x}"
            fields["span_id"] = f"{self.trace.span_id:016x}"
        return fields

    def _read_headers(self) -> TraceContext | None:
        traceparent, tracestate = None, b""
        for name, value in self.headers:
            if name == b"traceparent":
                traceparent = value
            elif name == b"tracestate":
                tracestate = tracestate + b"," + value if tracestate else value  # W3C: one list
            elif name == b"x-client-request-id":
                self.client_request_id = value[:512].decode("ascii", "replace")
        return parse_traceparent(traceparent, tracestate) if traceparent is not None else None
