"""Responses in the background, as their callers see them.

::

    queued ──> in_progress ──┬──> completed, incomplete, failed
       │            │        │
       └────────────┴────────┴──> cancelled

A job makes them (:mod:`gateway.responses.worker`), whatever becomes of the request or the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.database.engine import Database
from gateway.database.tables import ResponseRow
from gateway.errors import GatewayError, InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import JobQueue
from gateway.profile import Profile
from gateway.responses.answer import Work
from gateway.responses.assignment import Assignment
from gateway.responses.event_log import EventLog, replayed
from gateway.responses.private import PrivateRequests
from gateway.responses.repository import UNFINISHED, ResponseRepository
from gateway.responses.run import UNDER_WAY, shown_response
from gateway.responses.service import row_of, unknown
from gateway.responses.stream import Sink
from gateway.responses.tool_definitions import has_secrets

__all__ = ["BackgroundResponses"]

POLL_SECONDS = 0.2
_RUNS = 100
"""Runs of events that are read at once."""
_ALL = 2**62


class BackgroundResponses:
    def __init__(
        self, database: Database, queue: JobQueue, private: PrivateRequests, profile: Profile
    ) -> None:
        self._database = database
        self._queue = queue
        self._private = private
        self._profile = profile

    async def begin(
        self, assignment: Assignment, body: Mapping[str, Any], activity: Activity
    ) -> dict[str, Any]:
        """Queue it; the response object, ``queued``."""
        run = assignment.run
        run.status = "queued"
        private = any(has_secrets(tool) for tool in run.request.tools or ())
        row = row_of(assignment)
        row.request = {
            "body": _storable(body),
            "checkpoint": 1,
            "usage": run.usage_so_far(),
            "principal": assignment.principal.stored(),
        }
        row.private = private
        row.streamed = run.request.stream is True
        row.touched_at = run.created_at
        row.traceparent = activity.traceparent()
        payload = {"project": row.project, "id": run.id}
        shown = run.shown()
        if private:
            self._private.hold(row.project, run.id, body)
        try:
            async with self._database.begin() as session:
                responses = ResponseRepository(session)
                await responses.add(row)
                if row.streamed:
                    preamble = [
                        {"type": kind, "sequence_number": number, "response": shown}
                        for number, kind in enumerate(("response.created", "response.queued"))
                    ]
                    await responses.add_events(run.id, 0, 1, EventLog.lines(preamble))
                if not private:
                    await self._queue.put(session, "run_response", payload)
        except BaseException:
            self._private.forget(run.id)
            raise
        if private:
            self._private.begin(run.id)
        else:
            self._queue.wake()
        return shown

    async def cancel(self, principal: Principal, response_id: str) -> dict[str, Any]:
        """End it; the response as it is then. Cancelling twice is once."""
        async with self._database.begin() as session:
            responses = ResponseRepository(session)
            row = await responses.find(principal.project, response_id, hold=True)
            if row is None:
                raise unknown(response_id)
            if not row.background:
                raise InvalidRequest(
                    "Only responses that were created with 'background' can be cancelled.",
                    param="response_id",
                )
            if row.status not in (*UNFINISHED, "cancelled"):
                raise self._profile.late_cancel(
                    f"The response '{response_id}' is {row.status} already."
                )
            body, output = _cancelled(row)
            if row.status != "cancelled":
                await responses.cancel(principal.project, response_id, body, output)
                if row.streamed:
                    last = await responses.drop_events(response_id, _ALL)
                    event = {
                        "type": "response.incomplete",
                        "sequence_number": last + 1,
                        "response": shown_response(body, output, frozenset()),
                    }
                    await responses.add_events(
                        response_id, last + 1, last + 1, EventLog.lines([event])
                    )
        self._private.forget(response_id)
        return shown_response(body, output, frozenset())

    async def check_stream(self, principal: Principal, response_id: str) -> None:
        """Raises ``NotFound``, and ``InvalidRequest`` for a response whose events aren't kept
        while it is made.
        """
        async with self._database.read() as session:
            row = await ResponseRepository(session).find(principal.project, response_id)
        if row is None:
            raise unknown(response_id)
        if row.status in UNFINISHED and not row.streamed:
            raise InvalidRequest(
                "The response was not created with 'stream', so it can't be streamed before it "
                "is over.",
                param="stream",
            )

    def follower(self, principal: Principal, response_id: str, *, after: int) -> Work:
        """Sends the events after this number, those to come as well."""

        async def follow(sink: Sink) -> GatewayError | None:
            async for event in self._events(principal, response_id, after):
                await sink(event)
            return None

        return follow

    async def _events(
        self, principal: Principal, response_id: str, after: int
    ) -> AsyncIterator[dict[str, Any]]:
        while True:
            status, events = await self._read(principal, response_id, after)
            for event in events:
                after = event["sequence_number"]
                yield event
            if not events and status not in UNFINISHED:
                return
            if not events:
                await asyncio.sleep(POLL_SECONDS)

    async def _read(
        self, principal: Principal, response_id: str, after: int
    ) -> tuple[str, list[dict[str, Any]]]:
        """The status, read before the events: where it is over there are all of them."""
        project = principal.project
        async with self._database.read() as session:
            responses = ResponseRepository(session)
            progress = await responses.progress(project, response_id)
            if progress is None:
                raise unknown(response_id)
            status, _, streamed = progress
            events: Iterable[dict[str, Any]] = ()
            if streamed:
                events = _decoded(await responses.events(response_id, after, _RUNS))
            elif status not in UNFINISHED:
                row = await responses.find(project, response_id)
                events = replayed(row) if row is not None else ()
        return status, [event for event in events if event["sequence_number"] > after]


def _decoded(runs: Sequence[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    for _, lines in runs:
        for line in lines.splitlines():
            yield msgspec.json.decode(line)


def _storable(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request without its input, which has a column of its own, and without secrets."""
    stored = {name: value for name, value in body.items() if name != "input"}
    if isinstance(stored.get("tools"), list):
        stored["tools"] = [
            {
                name: value
                for name, value in tool.items()
                if name not in ("authorization", "headers")
            }
            if isinstance(tool, dict) and tool.get("type") == "mcp"
            else tool
            for tool in stored["tools"]
        ]
    return stored


def _cancelled(row: ResponseRow) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    output = [
        {**item, "status": "incomplete"} if item.get("status") in UNDER_WAY else item
        for item in row.output
    ]
    return {**row.body, "status": "cancelled"}, output
