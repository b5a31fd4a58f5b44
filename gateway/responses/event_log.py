"""The events of a response in the background, kept for readers that come later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.beside import beside
from gateway.database.engine import Database
from gateway.database.tables import ResponseRow
from gateway.errors import GatewayError
from gateway.responses.repository import ResponseRepository
from gateway.responses.run import Run, shown_response

__all__ = ["EventLog", "Remember", "TakenAway", "replayed"]

FLUSH_SECONDS = 0.2

Remember = Callable[[AsyncSession, Run], Awaitable[None]]


class TakenAway(Exception):
    """The response was cancelled or deleted, or is another worker's now."""


class EventLog:
    """A sink that writes down events in runs, and the response with them.

    Where the response isn't streamed its events are dropped. What it writes counts only while it
    is this worker's turn (``row.attempt``); afterwards nothing is written any more, and the
    worker's watcher ends the work.
    """

    begun = True

    def __init__(self, database: Database, row: ResponseRow) -> None:
        self._database = database
        self._row = row
        self._held: list[dict[str, Any]] = []
        # Readers go by numbers: a later run may not be there before an earlier one.
        self._writing = asyncio.Lock()
        self._in_doubt = False
        """Whether what is held may have been written: the answer to the commit was lost."""

    async def __call__(self, event: dict[str, Any]) -> None:
        if self._row.streamed:
            self._held.append(event)

    @staticmethod
    def lines(events: Sequence[dict[str, Any]]) -> str:
        return "\n".join(msgspec.json.encode(event).decode() for event in events)

    @asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """The time in which events are written as they come."""
        async with beside(self._flush_on(), "response events"):
            yield

    async def save(self, run: Run, last: int) -> None:
        """A checkpoint: another worker could go on from here.

        Raises ``UpstreamUnavailable``, and ``TakenAway`` where nothing counts any more.
        """
        request = {**(self._row.request or {}), "checkpoint": last, "usage": run.usage_so_far()}
        if not await self._write(output=run.output, request=request):
            raise TakenAway

    async def finish(self, run: Run, remember: Remember) -> None:
        """The response is over: with its last event, readable from now on."""
        await self._write(
            lambda session: remember(session, run),
            status=run.status,
            body=run.body(),
            output=run.output,
            request=None,
        )

    async def _flush_on(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if not self._held:
                continue
            # While the database is away, which it tells of itself, they are held.
            with suppress(GatewayError):
                await self._write()

    async def _write(
        self, then: Callable[[AsyncSession], Awaitable[None]] | None = None, **values: Any
    ) -> bool:
        """The row and what is held, both or none; False where it isn't this worker's turn."""
        row = self._row
        async with self._writing:
            held = list(self._held)
            in_doubt, self._in_doubt = self._in_doubt, bool(held)
            async with self._database.begin() as session:
                responses = ResponseRepository(session)
                if not await responses.save(row.project, row.id, row.attempt, **values):
                    return False
                if held:
                    first, last = held[0]["sequence_number"], held[-1]["sequence_number"]
                    if in_doubt:
                        await responses.drop_events(row.id, first - 1)
                    await responses.add_events(row.id, first, last, self.lines(held))
                if then is not None:
                    await then(session)
            del self._held[: len(held)]
            self._in_doubt = False
        return True


def replayed(row: ResponseRow) -> Iterator[dict[str, Any]]:
    """The events of a response that is over, as its stream would have told of it."""
    number = 0

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        return {"type": kind, "sequence_number": number - 1, **fields}

    whole = shown_response(row.body, row.output, frozenset())
    bare = {**whole, "status": "in_progress", "output": [], "usage": None}
    bare |= {"completed_at": None, "error": None, "incomplete_details": None}
    yield event("response.created", response=bare)
    yield event("response.in_progress", response=bare)
    for index, item in enumerate(whole["output"]):
        started = {**item, "status": "in_progress"} if "status" in item else item
        if item["type"] in ("message", "reasoning"):
            started = {**started, "content": []}
        yield event("response.output_item.added", output_index=index, item=started)
        where = {"item_id": item["id"], "output_index": index}
        if item["type"] in ("message", "reasoning"):
            for place, part in enumerate(item.get("content") or ()):
                yield from _part(event, {**where, "content_index": place}, part)
        elif item["type"] in ("function_call", "mcp_call"):
            kind = f"response.{item['type']}_arguments"
            named = {"name": item["name"]} if item["type"] == "function_call" else {}
            yield event(f"{kind}.delta", **where, delta=item["arguments"])
            yield event(f"{kind}.done", **where, **named, arguments=item["arguments"])
        yield event("response.output_item.done", output_index=index, item=item)
    last = "incomplete" if row.status == "cancelled" else row.status
    yield event(f"response.{last}", response=whole)


def _part(
    event: Callable[..., dict[str, Any]], where: dict[str, Any], part: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    kind = part["type"]
    field = "refusal" if kind == "refusal" else "text"
    empty = {**part, field: ""}
    logprobs: dict[str, Any] = {}
    if kind == "output_text":
        empty |= {"annotations": [], "logprobs": []}
        logprobs = {"logprobs": part.get("logprobs") or []}
    yield event("response.content_part.added", **where, part=empty)
    yield event(f"response.{kind}.delta", **where, delta=part[field], **logprobs)
    for place, annotation in enumerate(part.get("annotations") or ()):
        yield event(
            "response.output_text.annotation.added",
            **where,
            annotation_index=place,
            annotation=annotation,
        )
    yield event(f"response.{kind}.done", **where, **{field: part[field]}, **logprobs)
    yield event("response.content_part.done", **where, part=part)
