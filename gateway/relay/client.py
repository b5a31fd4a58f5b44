"""Asking a model for the gateway's own needs: the answer is read, not relayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import GatewayError, UpstreamError
from gateway.http.event_stream import DONE, EventCutter, event_data, split_events
from gateway.observability.activity import Activity
from gateway.observability.call import ModelCall
from gateway.ports import Answer, ModelServer
from gateway.relay.answer import LARGE_BYTES, note, read_answer, read_event, read_large_answer
from gateway.relay.json_object import rename_model
from gateway.relay.operation import Operation, Tee
from gateway.routing.attempts import NOTHING_LEARNT, Attempts, Outcome
from gateway.routing.catalog import Backend, Catalog

__all__ = ["ModelClient"]


class ModelClient:
    """Calls models of the catalog, each call a CLIENT span below the activity it belongs to."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ask(
        self,
        operation: Operation[Any],
        activity: Activity,
        request: Mapping[str, Any],
        *,
        as_relayed: bool = False,
    ) -> bytes:
        """The JSON answer to a request without ``stream``; ``request["model"]`` names the model.

        ``as_relayed`` is the answer as a caller of the relay would get it: it names the model as
        the request does, and fits OpenAI's schemas.

        Its backends are asked in turn until one answers. Raises ``ModelNotFound``, ``WrongKind``,
        ``InvalidRequest`` for what the server refuses, and ``UpstreamError``. Cancelling it stops
        the server's work.
        """
        body = dict(request)
        asked: str = body["model"]
        model = self._catalog.find(asked, operation.kinds)
        body["model"] = model.id
        named = msgspec.json.encode(body)
        seen = operation.decode(named)
        attempts = Attempts(model, named, activity.headers)
        while True:
            backend = attempts.begin()
            body["model"] = backend.model
            encoded = msgspec.json.encode(body) if backend.model != model.id else named
            outcome: Outcome = NOTHING_LEARNT
            try:
                answer = await self._ask(
                    operation, activity, seen, encoded, backend, attempts.count - 1
                )
                outcome = None
            except GatewayError as error:
                outcome = error
                if not attempts.may_go_on(error):
                    raise
            else:
                return _relayed(operation, backend, asked, answer) if as_relayed else answer
            finally:
                attempts.end(outcome)

    @asynccontextmanager
    async def stream(
        self, operation: Operation[Any], activity: Activity, request: Mapping[str, Any]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events' data of a streamed answer, without ``[DONE]``; usage is always asked for.

        Its backends are asked in turn until one has sent a good first event. Raises as ``ask``
        does; what breaks off later raises ``UpstreamError`` from the iterator. Leaving the block
        stops the server's work.
        """
        body = {**request, "stream": True, "stream_options": {"include_usage": True}}
        model = self._catalog.find(body["model"], operation.kinds)
        named = msgspec.json.encode({**body, "model": model.id})
        seen = operation.decode(named)
        attempts = Attempts(model, named, activity.headers)
        while True:
            backend = attempts.begin()
            encoded = named
            if backend.model != model.id:
                encoded = msgspec.json.encode({**body, "model": backend.model})
            call = activity.begin_call(operation, seen, backend)
            call.resend_count = attempts.count - 1
            call.stream = True
            tee = operation.tee(encoded) if operation.tee and activity.keeps_content else None
            events = _StreamedEvents(backend.server, call, tee)
            outcome: Outcome = NOTHING_LEARNT
            begun = False
            try:
                await events.begin(operation.path, encoded, activity.upstream_headers(call))
                begun = True
                yield events.run()
                outcome = None
            except GatewayError as error:
                call.end(error.error_type)
                if not begun:
                    outcome = error
                    if attempts.may_go_on(error):
                        continue
                elif error is events.failure:
                    outcome = error
                raise
            except BaseException:
                call.end("cancelled")
                raise
            else:
                return
            finally:
                events.close()
                activity.end_call(call)
                attempts.end(outcome)

    async def _ask(
        self,
        operation: Operation[Any],
        activity: Activity,
        request: Any,
        body: bytes,
        backend: Backend,
        resend_count: int,
    ) -> bytes:
        server = backend.server
        call = activity.begin_call(operation, request, backend)
        call.resend_count = resend_count
        try:
            answer = await server.send(operation.path, body, activity.upstream_headers(call))
            try:
                if answer.status != 200:
                    raise await server.refusal(operation.path, answer)
                if answer.content_type != "application/json":
                    raise UpstreamError(
                        f"The model server answered with {answer.content_type or 'no type'} "
                        "where JSON was due.",
                        code="upstream_not_json",
                    )
                blocks = await answer.read()
            finally:
                answer.close()
            joined = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            if not (
                operation.large_answers
                and len(joined) > LARGE_BYTES
                and read_large_answer(call, blocks)
            ):
                read_answer(call, joined)
        except GatewayError as error:
            call.end(error.error_type)
            raise
        except asyncio.CancelledError:
            call.end("cancelled")
            raise
        finally:
            activity.end_call(call)
        return joined


class _StreamedEvents:
    """One streamed answer, read event by event."""

    def __init__(self, server: ModelServer, call: ModelCall, tee: Tee | None) -> None:
        self._server = server
        self._call = call
        self._tee = tee
        self._cutter = EventCutter()
        self._answer: Answer | None = None
        self._first: list[bytes] = []
        self.failure: GatewayError | None = None
        """What the stream broke off with after it had begun."""

    async def begin(self, path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the request and wait for the first event. Raises the error that it is, if it is
        one.
        """
        answer = self._answer = await self._server.send(path, body, headers)
        if answer.status != 200:
            raise await self._server.refusal(path, answer)
        if answer.content_type != "text/event-stream":
            raise UpstreamError(
                f"The model server answered with {answer.content_type or 'no type'} where a "
                "stream was due.",
                code="upstream_not_json",
            )
        while not self._first:
            read = await self._read()
            if read is None:
                raise _broken_off()
            self._first = read
        if error := self._error(self._first[0]):
            raise error
        self._call.first_chunk = perf_counter_ns()

    async def run(self) -> AsyncIterator[bytes]:
        data = self._first
        try:
            while True:
                for one in data:
                    if one == DONE:
                        self._call.end()
                        return
                    if error := self._error(one):
                        raise error
                    if (seen := read_event(one)) is not None:
                        note(self._call, seen)
                    if self._tee is not None:
                        self._tee.event(one)
                    yield one
                read = await self._read()
                if read is None:
                    raise _broken_off()
                data = read
        except GatewayError as error:
            self.failure = error
            raise

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
        if self._tee is not None:
            self._call.content = self._tee.content()

    def _error(self, data: bytes) -> GatewayError | None:
        return self._server.event_error(data) if b'"error"' in data else None

    async def _read(self) -> list[bytes] | None:
        """The data of the events that came next, maybe none; ``None`` at the end."""
        assert self._answer is not None  # begun
        block = await self._answer.next_block()
        if block is None:
            return None
        if isinstance(block, type):  # Quiet
            return []
        events = split_events(self._cutter.feed(block))
        return [data for event in events if (data := event_data(event))]


def _relayed(operation: Operation[Any], backend: Backend, asked: str, answer: bytes) -> bytes:
    if backend.model != asked:
        answer = rename_model(answer, ("model",), Raw(msgspec.json.encode(asked)))
    return backend.server.conform(answer) if operation.conforms else answer


def _broken_off() -> UpstreamError:
    return UpstreamError(
        "The model server ended the stream before the answer was complete.",
        code="upstream_disconnected",
    )
