"""What is told of a request when it is over: its spans, its metrics, its log line."""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import Event
from opentelemetry.trace import SpanKind

from gateway.errors import ClientDisconnected
from gateway.identity.principal import NOBODY, Principal
from gateway.observability import semconv
from gateway.observability.metrics import Metrics
from gateway.observability.tracing import Trace, Tracing

if TYPE_CHECKING:
    from gateway.observability.call import ModelCall, Usage
    from gateway.observability.exchange import Exchange

logger = logging.getLogger("gateway.access")

UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/v1/health"})
"""Paths that probes and scrapers ask all day; nobody wants their spans."""

_NANOSECOND = 1e-9


class Telemetry:
    """Told by the edge when a request begins and ends."""

    def __init__(self, tracing: Tracing, metrics: Metrics, *, access_log: bool = False) -> None:
        self.tracing = tracing
        self.metrics = metrics
        self._access_log = access_log
        self._active = metrics.active_requests

    def begin(self, exchange: Exchange) -> None:
        self._active.inc()
        exchange.telemetry = self
        if self.tracing.enabled and exchange.path not in UNTRACED:
            exchange.trace = self.tracing.begin(exchange.method, exchange.parent)

    def end(self, exchange: Exchange) -> None:
        """Never raises and never blocks: exporting happens elsewhere."""
        ended = perf_counter_ns()
        self._active.dec()
        status = exchange.status or 499
        self.metrics.request_ended(
            exchange.method, exchange.route, status, ended - exchange.started
        )
        for call in exchange.calls:
            call.end()
            self.metrics.call_ended(call)
        trace = exchange.trace
        if trace is not None and trace.sampled:
            for call in exchange.calls:
                self._record_call(trace, call, trace.span_id, exchange.clock)
            self._record_request(exchange, trace, status, ended)
        if self._access_log or exchange.error_type is not None:
            self._log(exchange, status, ended)

    def call_ended(self, call: ModelCall, trace: Trace | None, parent_id: int, clock: int) -> None:
        """A call to a model server that is a part of something larger than a relay is over."""
        call.end()
        self.metrics.call_ended(call)
        if trace is not None and trace.sampled:
            self._record_call(trace, call, parent_id, clock)

    def _record_request(self, exchange: Exchange, trace: Trace, status: int, ended: int) -> None:
        attributes: dict[str, Any] = {
            semconv.HTTP_METHOD: exchange.method,
            semconv.HTTP_STATUS: status,
            semconv.URL_PATH: exchange.path,
            semconv.URL_SCHEME: exchange.scheme,
            semconv.HTTP_REQUEST_ID: (exchange.request_id.decode(),),
        }
        if exchange.route:
            attributes[semconv.HTTP_ROUTE] = exchange.route
        if exchange.client_request_id is not None:
            attributes[semconv.HTTP_CLIENT_REQUEST_ID] = (exchange.client_request_id,)
        if exchange.principal is not NOBODY:
            _add_principal(attributes, exchange.principal)
        if exchange.error_type is not None:
            attributes[semconv.ERROR_TYPE] = exchange.error_type
        name = f"{exchange.method} {exchange.route}" if exchange.route else exchange.method
        # By the HTTP conventions a 4xx is not an error of the server's span.
        failed = _failed(status, exchange.error_type)
        self.tracing.record(
            trace,
            name=name,
            kind=SpanKind.SERVER,
            span_id=trace.span_id,
            parent_id=trace.parent.span_id if trace.parent is not None else None,
            attributes=attributes,
            started=exchange.started + exchange.clock,
            ended=ended + exchange.clock,
            error=exchange.error_type if failed else None,
        )

    def _record_call(self, trace: Trace, call: ModelCall, parent_id: int, clock: int) -> None:
        assert call.ended is not None  # ended above
        attributes = call_attributes(call)
        events: tuple[Event, ...] = ()
        if call.content is not None:
            if self.tracing.content_on_spans:
                attributes.update(call.content)
            if self.tracing.content_as_events:
                events = (Event(semconv.CONTENT_EVENT, dict(call.content), call.ended + clock),)
        self.tracing.record(
            trace,
            name=f"{call.operation.name} {call.model}",
            kind=SpanKind.CLIENT,
            span_id=call.span_id,
            parent_id=parent_id,
            attributes=attributes,
            started=call.started + clock,
            ended=call.ended + clock,
            error=call.error_type,
            events=events,
        )

    def _log(self, exchange: Exchange, status: int, ended: int) -> None:
        fields = exchange.log_fields() | {
            "method": exchange.method,
            "path": exchange.path,
            "status": status,
            "milliseconds": round((ended - exchange.started) / 1e6, 1),
        }
        if (principal := exchange.principal) is not NOBODY:
            fields["project"] = principal.project
            fields |= {"subject": principal.subject} if principal.subject else {}
            fields |= {"key_id": principal.key_id} if principal.key_id else {}
        if exchange.calls:
            call = exchange.calls[-1]
            fields |= {"model": call.model, "server": call.backend.server.name}
        if exchange.error_type is not None:
            fields["error_type"] = exchange.error_type
        if exchange.reason is not None:
            fields["reason"] = exchange.reason
        failed = _failed(status, exchange.error_type)
        level = logging.WARNING if failed else logging.INFO
        if level == logging.WARNING or self._access_log:
            logger.log(level, "%s %s %s", exchange.method, exchange.path, status, extra=fields)


def _failed(status: int, error_type: str | None) -> bool:
    """Whether the request failed; a stream can do so after its status of 200.

    A caller that leaves is no failure of the gateway's.
    """
    if error_type == ClientDisconnected.default_code:
        return False
    return status >= 500 or (status < 400 and error_type is not None)


def call_attributes(call: ModelCall) -> dict[str, Any]:
    """The CLIENT span's attributes: what is known, and nothing guessed."""
    operation, server = call.operation, call.backend.server
    attributes: dict[str, Any] = {
        semconv.OPERATION: operation.name,
        semconv.PROVIDER: server.provider,
        semconv.REQUEST_MODEL: call.model,
        semconv.SERVER_ADDRESS: server.host,
        semconv.SERVER_PORT: server.port,
        semconv.BACKEND_ID: call.backend.provider_id,
    }
    if call.backend.model != call.model:
        attributes[semconv.BACKEND_MODEL] = call.backend.model
    if call.resend_count:
        attributes[semconv.HTTP_RESEND_COUNT] = call.resend_count
    if operation.api_type is not None:
        attributes[semconv.OPENAI_API_TYPE] = operation.api_type
    attributes.update(operation.attributes(call.request))
    if call.stream:
        attributes[semconv.REQUEST_STREAM] = True
        if call.first_chunk is not None:
            attributes[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] = (
                call.first_chunk - call.started
            ) * _NANOSECOND
    _add_answer(attributes, call)
    if call.usage is not None:
        _add_usage(attributes, call.usage)
    if call.error_type is not None:
        attributes[semconv.ERROR_TYPE] = call.error_type
    return attributes


def _add_principal(attributes: dict[str, Any], principal: Principal) -> None:
    attributes[semconv.PROJECT] = principal.project
    if principal.subject is not None:
        attributes[semconv.ENDUSER_ID] = principal.subject
    if principal.key_id is not None:
        attributes[semconv.API_KEY_ID] = principal.key_id


def _add_answer(attributes: dict[str, Any], call: ModelCall) -> None:
    if call.response_model is not None:
        attributes[semconv.RESPONSE_MODEL] = call.response_model
    if call.response_id is not None:
        attributes[semconv.RESPONSE_ID] = call.response_id
    if call.finish_reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = tuple(call.finish_reasons)
    if call.system_fingerprint is not None:
        attributes[semconv.OPENAI_FINGERPRINT] = call.system_fingerprint


def _add_usage(attributes: dict[str, Any], usage: Usage) -> None:
    if (count := usage.input) is not None:
        attributes[semconv.INPUT_TOKENS] = count
    if (count := usage.output) is not None:
        attributes[semconv.OUTPUT_TOKENS] = count
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    if prompt is not None and prompt.cached_tokens is not None:
        attributes[semconv.CACHED_TOKENS] = prompt.cached_tokens
    if completion is not None and completion.reasoning_tokens is not None:
        attributes[semconv.REASONING_TOKENS] = completion.reasoning_tokens
