"""The way of one request to a model server and of its answer back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.body import read_json_body
from gateway.http.disconnect import Departure
from gateway.http.refusal import refuse
from gateway.observability.call import ModelCall
from gateway.relay.admission import Admission
from gateway.relay.json_object import replace_fields
from gateway.relay.operation import Operation, Tee
from gateway.relay.passage import Passage
from gateway.relay.plain import pass_answer
from gateway.relay.recording import Record, Recorder
from gateway.relay.stream import StreamRelay
from gateway.routing.attempts import NOTHING_LEARNT, Attempts, Outcome
from gateway.routing.catalog import Backend, Catalog, Model

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope, Send
    from gateway.observability.exchange import Exchange

_USAGE = Raw(b'{"include_usage":true}')


class _StreamOptions(Struct, frozen=True):
    stream_options: dict[str, Any] | None = None


class Relay:
    """An ASGI application for one operation.

    Takes the body in, finds the model, sends the bytes on and the answer back. Nothing is decoded
    that isn't needed and a stream is never serialised again.
    """

    def __init__(
        self,
        operation: Operation[Any],
        catalog: Catalog,
        *,
        max_body_bytes: int,
        capture_content: bool = False,
        recorder: Recorder | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.operation = operation
        self._catalog = catalog
        self._max_body_bytes = max_body_bytes
        self._tee = operation.tee if capture_content else None
        self._recorder = recorder
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["state"]["exchange"]
        try:
            body = await read_json_body(scope, receive, self._max_body_bytes)
            request = self.operation.decode(body)
            allowed = exchange.principal.models
            model = self._catalog.find(request.model, self.operation.kinds, allowed)
            record = None
            if self._recorder is not None and request.store in self._recorder.when:
                record = self._recorder.begin(scope, request, body)
            lease = None
            exchange.model_id = model.id
            if self._admission is not None:
                lease = await self._admission.begin(scope, model.id, request, body)
            try:
                with Departure(receive) as departure:
                    await self._relay(exchange, model, request, body, send, departure, record)
            finally:
                if lease is not None:
                    lease.end(exchange.calls[-1] if exchange.calls else None)
        except GatewayError as error:
            exchange.fail(error)
            if not exchange.answered and not isinstance(error, ClientDisconnected):
                await refuse(error, send, self.operation.error_body(error))

    async def _relay(
        self,
        exchange: Exchange,
        model: Model,
        request: Any,
        body: bytes,
        send: Send,
        departure: Departure,
        record: Record | None,
    ) -> None:
        """Ask the model's backends in turn until one has begun to answer."""
        operation = self.operation
        # What is wrong with it is the caller's, before any server is asked.
        wanted = body if operation.to_upstream is None else operation.to_upstream(request)
        attempts = Attempts(model, body, exchange.headers)
        while True:
            backend = attempts.begin()
            if model.routing.served_by_header:
                exchange.served_by = backend.server.name
            call = exchange.begin_call(operation, request, backend)
            call.resend_count = attempts.count - 1
            outcome: Outcome = NOTHING_LEARNT
            try:
                tee = self._tee(body) if self._tee is not None and exchange.sampled else None
                outcome = await self._call(
                    exchange, call, backend, request, wanted, send, record, tee
                )
            except GatewayError as error:
                outcome = error
                call.end(error.error_type)
                if exchange.answered or not attempts.may_go_on(error):
                    raise
            except asyncio.CancelledError:
                call.end("client_disconnected" if departure.left else "shutting_down")
                raise
            else:
                exchange.error_type = call.error_type  # of a stream that broke off
                return
            finally:
                attempts.end(outcome)

    async def _call(
        self,
        exchange: Exchange,
        call: ModelCall,
        backend: Backend,
        request: Any,
        body: bytes,
        send: Send,
        record: Record | None,
        tee: Tee | None,
    ) -> GatewayError | None:
        """One call to one backend: the request out, the answer or the error in.

        Returns what a stream broke off with after it had begun; raises what comes before.
        """
        operation, server = self.operation, backend.server
        renamed = backend.model != request.model
        options = getattr(request, "stream_options", None)
        show_usage = options is not None and options.include_usage is True
        call.stream = bool(getattr(request, "stream", None))
        body = _outgoing(
            body,
            model=backend.model if renamed else None,
            ask_usage=call.stream and operation.asks_usage and not show_usage,
            other_options=options is not None,
        )
        call.body = body
        answer = await server.send(operation.path, body, exchange.upstream_headers(call))
        try:
            if answer.status != 200:
                raise await server.refusal(operation.path, answer)
            rename = Raw(msgspec.json.encode(request.model)) if renamed else None
            passage = Passage(operation, server, answer, call, send, rename, tee, record)
            if answer.content_type == "text/event-stream":
                await StreamRelay(passage, show_usage=show_usage).run()
            else:
                await pass_answer(passage)
            return passage.failure
        finally:
            answer.close()
            if tee is not None:
                call.content = tee.content()


def _outgoing(body: bytes, *, model: str | None, ask_usage: bool, other_options: bool) -> bytes:
    """The request as the server gets it: the caller's bytes, unless something must be set."""
    fields: dict[str, Raw] = {}
    if model is not None:
        fields["model"] = Raw(msgspec.json.encode(model))
    if ask_usage:
        fields["stream_options"] = _with_usage(body) if other_options else _USAGE
    return replace_fields(body, fields) if fields else body


def _with_usage(body: bytes) -> Raw:
    """The request's stream options, with usage asked for at the end and only there."""
    given = msgspec.json.decode(body, type=_StreamOptions).stream_options or {}
    given.pop("continuous_usage_stats", None)
    return Raw(msgspec.json.encode(given | {"include_usage": True}))
