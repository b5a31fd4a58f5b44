"""The way of one request to a model server and of its answer back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.errors import ClientDisconnected, GatewayError, UpstreamError
from gateway.http.body import read_json_body
from gateway.http.disconnect import Departure
from gateway.ports import Answer
from gateway.relay.call import ModelCall
from gateway.relay.operation import Operation, rename_model, replace_fields
from gateway.relay.stream import StreamRelay
from gateway.routing.catalog import Backend, Catalog, Model

if TYPE_CHECKING:
    from gateway.http.asgi import Receive, Scope, Send
    from gateway.http.exchange import Exchange

_INCLUDE_USAGE = {"include_usage": True}
_ELSEWHERE = frozenset({429, 500, 502, 503})
_ANSWER_TYPES = frozenset({"application/json", "application/octet-stream"})
_PASSED_ON = (b"metadata",)
"""Answer headers that a caller needs: vLLM describes binary embeddings in ``metadata``."""


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
    ) -> None:
        self.operation = operation
        self._catalog = catalog
        self._max_body_bytes = max_body_bytes
        self._tee = operation.tee if capture_content else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["state"]["exchange"]
        try:
            body = await read_json_body(scope, receive, self._max_body_bytes)
            request = self.operation.decode(body)
            model = self._catalog.find(request.model, self.operation.kinds)
            with Departure(receive):
                await self._relay(exchange, model, request, body, send)
        except GatewayError as error:
            exchange.fail(error)
            if not exchange.answered and not isinstance(error, ClientDisconnected):
                await _refuse(self.operation, error, send)

    async def _relay(
        self, exchange: Exchange, model: Model, request: Any, body: bytes, send: Send
    ) -> None:
        """Ask the model's backends in turn until one has begun to answer.

        Another one is asked only while the caller has got nothing, and never for the caller's own
        mistake or after a time limit: a second server wouldn't be quicker.
        """
        backends = model.candidates()
        last = len(backends) - 1
        for position, backend in enumerate(backends):
            call = exchange.begin_call(self.operation, request, backend)
            try:
                await self._call(exchange, call, backend, request, body, send)
            except GatewayError as error:
                call.end(error.error_type)
                elsewhere = error.nothing_sent or error.status in _ELSEWHERE
                if position == last or not elsewhere or exchange.answered:
                    raise
            except asyncio.CancelledError:
                call.end("client_disconnected")
                raise
            else:
                return

    async def _call(
        self,
        exchange: Exchange,
        call: ModelCall,
        backend: Backend,
        request: Any,
        body: bytes,
        send: Send,
    ) -> None:
        operation, server = self.operation, backend.server
        stream = bool(getattr(request, "stream", None))
        options = getattr(request, "stream_options", None)
        show_usage = options is not None and options.include_usage is True
        call.stream = stream
        if operation.to_upstream is not None:
            body = operation.to_upstream(request)
        body = _outgoing(
            body,
            model=backend.model if backend.model != request.model else None,
            ask_usage=stream and operation.asks_usage and not show_usage,
        )
        rename = Raw(msgspec.json.encode(request.model)) if backend.model != request.model else None
        tee = self._tee(body) if self._tee is not None and exchange.sampled else None
        answer = await server.send(operation.path, body, exchange.upstream_headers(call))
        try:
            if answer.status != 200:
                raise await server.refusal(operation.path, answer)
            if answer.content_type == "text/event-stream":
                await StreamRelay(
                    operation,
                    server,
                    answer,
                    call,
                    send,
                    show_usage=show_usage,
                    rename=rename,
                    tee=tee,
                ).run()
            else:
                await self._pass_answer(answer, backend, call, send, rename, tee)
        finally:
            answer.close()
            if tee is not None:
                call.content = tee.content()

    async def _pass_answer(
        self,
        answer: Answer,
        backend: Backend,
        call: ModelCall,
        send: Send,
        rename: Raw | None,
        tee: Any,
    ) -> None:
        """Pass on an answer that isn't a stream; it is whole before its status is sent."""
        if answer.content_type not in _ANSWER_TYPES:
            raise UpstreamError(
                f"The model server answered with {answer.content_type or 'an unnamed type'} where "
                "JSON was due; a page in HTML is most likely a login page.",
                code="upstream_not_json",
            )
        headers = [(b"content-type", answer.content_type.encode("latin-1"))]
        headers += [(name, value) for name in _PASSED_ON if (value := answer.header(name))]
        blocks = await answer.read()
        if answer.content_type == "application/json":
            body = self.operation.read_answer(call, blocks)
            if rename is not None:
                body = rename_model(b"".join(blocks), ("model",), rename)
            if body is not None:
                if self.operation.conforms:
                    body = backend.server.conform(body)
                if self.operation.from_upstream is not None:
                    body = self.operation.from_upstream(body)
                if tee is not None:
                    tee.answer(body)
                blocks = [body]
        call.end()
        size = sum(map(len, blocks))
        headers.append((b"content-length", b"%d" % size))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for block in blocks[:-1]:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        final = blocks[-1] if blocks else b""
        await send({"type": "http.response.body", "body": final, "more_body": False})


def _outgoing(body: bytes, *, model: str | None, ask_usage: bool) -> bytes:
    """The request as the server gets it: the caller's bytes, unless something must be set."""
    fields: dict[str, Raw] = {}
    if model is not None:
        fields["model"] = Raw(msgspec.json.encode(model))
    if ask_usage:
        fields["stream_options"] = Raw(msgspec.json.encode(_INCLUDE_USAGE))
    return replace_fields(body, fields) if fields else body


async def _refuse(operation: Operation[Any], error: GatewayError, send: Send) -> None:
    body = operation.error_body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *error.headers(),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
