"""A streamed answer on its way to the caller.

Whole events are passed on as the bytes they came in. An event is looked into only where something
must be known or changed: the first one (an overloaded vLLM answers 200 and puts the error there),
and those that carry usage, a finish reason or an error.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

from gateway.errors import GatewayError, ShuttingDown, UpstreamError
from gateway.http.event_stream import (
    DONE,
    PING,
    EventCutter,
    event_data,
    split_events,
    with_data,
)
from gateway.relay.answer import note, read_event
from gateway.relay.json_object import rename_model
from gateway.relay.passage import Passage
from gateway.relay.recording import Record

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamRelay:
    """Passes one stream on.

    ``show_usage`` says whether the caller asked for the usage event, which is always asked of the
    server.
    """

    __slots__ = (
        "_call",
        "_cutter",
        "_done",
        "_ended",
        "_look_always",
        "_passage",
        "_show_usage",
        "_started",
    )

    def __init__(self, passage: Passage, *, show_usage: bool) -> None:
        self._passage = passage
        self._call = passage.call
        self._show_usage = show_usage
        self._look_always = (
            passage.rename is not None or passage.tee is not None or passage.record is not None
        )
        self._cutter = EventCutter()
        self._started = False
        self._ended = False
        self._done = False

    async def run(self) -> None:
        """Pass the stream on to its end.

        Raises the error of a first event, or ``UpstreamError``, while nothing has been sent, so
        that it can become a status. Later failures become an error event; the stream then ends
        without ``[DONE]``, and the call's ``error_type`` is set.
        """
        try:
            await self._relay()
        except UpstreamError as error:
            if not self._started:
                raise
            self._passage.failure = error
            self._call.end(error.error_type)
            await self._break_off(error)
        except asyncio.CancelledError:
            # The caller left, and this goes nowhere; or the gateway is ending, and the caller
            # must not take what it has for all of it.
            if self._started:
                await self._break_off(ShuttingDown("The gateway is shutting down."))
            raise
        else:
            self._call.end(self._call.error_type)
            if self._passage.record is not None:
                await self._finish(self._passage.record)
            await self._start()
            await self._passage.send(
                {"type": "http.response.body", "body": b"", "more_body": False}
            )

    async def _relay(self) -> None:
        answer, send = self._passage.answer, self._passage.send
        feed = self._cutter.feed
        begun = False
        while (block := await answer.next_block()) is not None:
            if isinstance(block, type):  # Quiet
                await self._start()
                await send({"type": "http.response.body", "body": PING, "more_body": True})
                continue
            events = feed(block)
            if not events:
                continue
            if not begun:
                begun = self._look_at_first(events)
                if not begun:
                    continue  # only comments so far
                await self._start()
            if self._look_always or _is_notable(events):
                events = await self._seen(events)
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            if self._call.error_type is not None:
                return
        if not self._ended:
            raise UpstreamError(
                "The model server ended the stream before the answer was complete.",
                code="upstream_disconnected",
            )

    def _look_at_first(self, events: bytes) -> bool:
        """Whether an event is there yet. Raises the error that the first one is, if it is one."""
        for event in split_events(events):
            if data := event_data(event):
                if b'"error"' in data and (error := self._passage.server.event_error(data)):
                    if not self._started:
                        raise error
                    return True
                self._call.first_chunk = perf_counter_ns()
                if (answer := read_event(data)) is not None:
                    self._call.response_id = answer.id
                    self._call.response_model = answer.model
                return True
        return False

    async def _seen(self, events: bytes) -> bytes:
        """What is to be passed on of the events; the last ones once the answer is kept."""
        events = self._look(events)
        if self._done and self._passage.record is not None:
            self._call.end(self._call.error_type)
            await self._finish(self._passage.record)
        return events

    def _look(self, events: bytes) -> bytes:
        """Go through the events one by one; what is to be passed on of them."""
        kept = []
        for event in split_events(events):
            data = event_data(event)
            if data == DONE:
                self._ended = self._done = True
                kept.append(event)
            elif not data:
                kept.append(event)
            elif b'"error"' in data and (error := self._passage.server.event_error(data)):
                self._passage.failure = error
                self._call.end(error.error_type)
                kept.append(self._passage.operation.error_event(error))
                break  # a [DONE] after it would pretend success
            elif (shown := self._see(event, data)) is not None:
                kept.append(shown)
        return b"".join(kept)

    def _see(self, event: bytes, data: bytes) -> bytes | None:
        """Note what one good event says; return it as the caller shall see it, if at all."""
        passage, operation, call = self._passage, self._passage.operation, self._call
        answer = read_event(data)
        if passage.record is not None:
            passage.record.event(data)
        if answer is not None:
            note(call, answer)
            if b'_reason":"' in data:
                self._ended = True
            if (
                operation.asks_usage
                and not self._show_usage
                and answer.usage is not None
                and not answer.choices
            ):
                return None
        if passage.rename is not None and answer is not None:
            renamed = rename_model(data, operation.stream_model_path, passage.rename)
            if renamed is not data:
                data, event = renamed, with_data(event, renamed)
        if passage.tee is not None:
            passage.tee.event(data)
        return event

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._passage.send(
                {"type": "http.response.start", "status": 200, "headers": HEADERS.copy()}
            )

    async def _finish(self, record: Record) -> None:
        """Keep the answer before its caller takes it for over, unless it broke off."""
        if self._call.error_type is None:
            await record.finish()

    async def _break_off(self, error: GatewayError) -> None:
        await self._passage.send(
            {
                "type": "http.response.body",
                "body": self._passage.operation.error_event(error),
                "more_body": False,
            }
        )


def _is_notable(events: bytes) -> bool:
    """Whether any of these events may carry what must be looked at.

    A key in quotes can't occur inside a JSON string, where quotes are escaped; the rest is a cheap
    "maybe" that :meth:`StreamRelay._look` decides.
    """
    return (
        b'"usage":' in events
        or b'_reason":"' in events
        or b'"error"' in events
        or b"[DONE]" in events
    )
