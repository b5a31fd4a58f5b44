"""Making responses in the background.

A worker that dies is followed by another, which goes on from the last turn that was written down.
What a worker writes counts only while it is its turn. A response that needs a caller's tokens for
an MCP server is made by the process that took the request, since these are never stored; when that
process dies, the response fails and says so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.conversations.repository import ConversationRepository
from gateway.database.engine import Database
from gateway.database.tables import ResponseRow
from gateway.errors import GatewayError, RateLimited, UpstreamUnavailable
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.observability.telemetry import Telemetry
from gateway.ports import Handler, Job, JobQueue, TryAgain
from gateway.responses.event_log import EventLog, Remember
from gateway.responses.performance import Performer
from gateway.responses.preparation import Preparation, decode
from gateway.responses.private import PrivateRequests
from gateway.responses.repository import ResponseRepository
from gateway.responses.run import Run
from gateway.responses.stream import ResponseStream

__all__ = ["ResponseWorker"]

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
WATCH_SECONDS = 1.0
FORGOTTEN_SECONDS = 120
_FORGOTTEN_AT_ONCE = 100
_DATABASE_AWAY = "database_unavailable"
_LOST_SECRETS = (
    "The process that worked on this response has ended, and with it the credentials for its MCP "
    "servers, which are never stored. Create the response again."
)


class _TakenAway(Exception):
    """The response was cancelled or deleted, or is another worker's now."""


class ResponseWorker:
    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        private: PrivateRequests,
        preparation: Preparation,
        performer: Performer,
        telemetry: Telemetry,
    ) -> None:
        self._database = database
        self._queue = queue
        self._private = private
        self._preparation = preparation
        self._performer = performer
        self._telemetry = telemetry

    def handlers(self) -> dict[str, Handler]:
        return {"run_response": self.work}

    async def work(self, job: Job) -> None:
        """The handler of ``run_response``."""
        project, response_id = job.payload["project"], job.payload["id"]
        async with self._database.begin() as session:
            row = await ResponseRepository(session).claim(project, response_id)
        if row is None:
            self._private.forget(response_id)
            return
        with Activity.of_job(
            self._telemetry, "run_response", caused_by=row.traceparent
        ) as activity:
            await self._make(Principal(project=project), row, activity)
        self._private.forget(response_id)

    async def _make(self, principal: Principal, row: ResponseRow, activity: Activity) -> None:
        log = EventLog(self._database, row)
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch(row))
                await self._perform(principal, row, log, activity)
                watcher.cancel()
        except* _TakenAway:
            logger.info("Response %s was taken away while it was made", row.id)
        except* TryAgain as again:
            raise again.exceptions[0] from None
        except* GatewayError as failed:
            raise failed.exceptions[0] from None

    async def _perform(
        self, principal: Principal, row: ResponseRow, log: EventLog, activity: Activity
    ) -> None:
        assert row.request is not None  # unfinished
        body = {**row.request["body"], "input": row.input or None}
        run = Run(row.id, decode(body), created_at=row.body["created_at"])
        stream = ResponseStream(run, log)
        try:
            body = self._whole(row, body)
            assignment = await self._preparation.prepare(
                principal, body, response_id=row.id, created_at=row.body["created_at"]
            )
            run = stream.run = assignment.run
            run.output = list(row.output)
            run.resume(row.request["usage"])
            stream.next_number = await log.resume(row.request["checkpoint"])

            async def checkpoint() -> None:
                await log.save(run, stream.next_number - 1)

            await stream.respond("response.in_progress")
            async with log.flushing():
                await self._performer.perform(assignment, stream, activity, checkpoint)
        except GatewayError as error:
            if error.code == _DATABASE_AWAY:
                raise  # another attempt goes on when it is back
            waits = isinstance(error, UpstreamUnavailable | RateLimited)
            if waits and row.attempt < MOST_ATTEMPTS:
                raise TryAgain(2.0**row.attempt, error.message) from None
            run.fail(error)
        await stream.respond(run.event)
        await log.finish(run, self._after(principal, row))

    def _whole(self, row: ResponseRow, body: dict[str, Any]) -> dict[str, Any]:
        """The request with its secrets. Raises where it can't be done any more."""
        if row.attempt > MOST_ATTEMPTS:
            raise GatewayError(
                f"The response could not be made: its worker ended {row.attempt - 1} times."
            )
        if not row.private:
            return body
        held = self._private.get(row.id)
        if held is None:
            raise GatewayError(_LOST_SECRETS, code="credentials_lost")
        return {**held, "input": body["input"]}

    def _after(self, principal: Principal, row: ResponseRow) -> Remember:
        """What belongs into the transaction that ends a response."""

        async def remember(session: AsyncSession, run: Run) -> None:
            if row.conversation_id is not None and run.status != "failed":
                await ConversationRepository(session).append(
                    principal.project, row.conversation_id, [*row.input, *run.output]
                )

        return remember

    async def _watch(self, row: ResponseRow) -> None:
        """Raises once the response isn't this worker's to make any more."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            async with self._database.read() as session:
                found = await ResponseRepository(session).status(row.project, row.id)
            if found != ("in_progress", row.attempt):
                raise _TakenAway

    async def find_forgotten(self) -> int:
        """Put jobs anew whose response nobody touches, and fail what nobody can make; how many.

        For the reaper.
        """
        async with self._database.begin() as session:
            responses = ResponseRepository(session)
            rows = await responses.forgotten(FORGOTTEN_SECONDS, _FORGOTTEN_AT_ONCE)
            await responses.touch([row.id for row in rows])
            for row in rows:
                # A private one fails in any process but its own, which is gone: it would touch it.
                payload = {"project": row.project, "id": row.id}
                await self._queue.put(session, "run_response", payload)
        if rows:
            logger.warning("Responses that nobody made: %d", len(rows))
            self._queue.wake()
        return 0
