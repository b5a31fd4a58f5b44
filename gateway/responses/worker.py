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
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    UpstreamUnavailable,
)
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.observability.telemetry import Telemetry
from gateway.ports import Handler, Job, JobQueue, TryAgain
from gateway.responses.event_log import EventLog, Remember, TakenAway
from gateway.responses.performance import Performer
from gateway.responses.preparation import Preparation, decode
from gateway.responses.private import PrivateRequests
from gateway.responses.repository import ResponseRepository
from gateway.responses.run import Run
from gateway.responses.schemas import CreateResponse
from gateway.responses.stream import ResponseStream

__all__ = ["ResponseWorker"]

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""As the queue counts them: a worker that ends in order doesn't count."""
WATCH_SECONDS = 1.0
FORGOTTEN_SECONDS = 120
_FORGOTTEN_AT_ONCE = 100
_DATABASE_AWAY = "database_unavailable"
_LOST_SECRETS = (
    "The process that worked on this response has ended, and with it the credentials for its MCP "
    "servers, which are never stored. Create the response again."
)


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
            await self._make(_principal(row), row, job.attempt, activity)
        self._private.forget(response_id)

    async def _make(
        self, principal: Principal, row: ResponseRow, attempt: int, activity: Activity
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch(row))
                await self._perform(principal, row, attempt, activity)
                watcher.cancel()
        except* TakenAway:
            logger.info("Response %s was taken away while it was made", row.id)
        except* TryAgain as again:
            raise again.exceptions[0] from None
        except* GatewayError as failed:
            raise failed.exceptions[0] from None

    async def _perform(
        self, principal: Principal, row: ResponseRow, attempt: int, activity: Activity
    ) -> None:
        assert row.request is not None  # unfinished
        log = EventLog(self._database, row)
        body = {**row.request["body"], "input": row.input or None}
        run = Run(row.id, _decoded(row, body), created_at=row.body["created_at"])
        run.resume(row.output, row.request["usage"])
        stream = ResponseStream(run, log, first=row.request["last"] + 1)
        try:
            body = self._whole(row, attempt, body)
            assignment = await self._preparation.prepare(
                principal, body, response_id=row.id, created_at=row.body["created_at"]
            )
            run = stream.run = assignment.run
            run.resume(row.output, row.request["usage"])

            async def checkpoint() -> None:
                await log.save(run, stream.next_number - 1)

            await stream.respond("response.in_progress")
            async with log.flushing():
                await self._performer.perform(assignment, stream, activity, checkpoint)
        except GatewayError as error:
            if error.code == _DATABASE_AWAY:
                raise  # another attempt goes on when it is back
            if _passes(error) and attempt < MOST_ATTEMPTS:
                raise TryAgain(2.0**attempt, error.message) from None
            run.fail(error)
        await stream.respond(run.event)
        await log.finish(run, self._after(principal, row))

    def _whole(self, row: ResponseRow, attempt: int, body: dict[str, Any]) -> dict[str, Any]:
        """The request with its secrets. Raises where it can't be done any more."""
        if attempt > MOST_ATTEMPTS:
            raise GatewayError(
                f"The response could not be made: {MOST_ATTEMPTS} attempts ended before it was "
                "done."
            )
        if not row.private:
            return body
        held = self._private.get(row.id)
        if held is None:
            raise GatewayError(_LOST_SECRETS)
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
            try:
                async with self._database.read() as session:
                    found = await ResponseRepository(session).progress(row.project, row.id)
            except GatewayError:
                continue  # the database is away: what is to be written decides
            if found is None or found[:2] != ("in_progress", row.attempt):
                raise TakenAway

    async def find_forgotten(self) -> int:
        """Have the private responses fail whose process is gone; how many. For the reaper.

        All others have a job, which no death of a worker ends.
        """
        async with self._database.begin() as session:
            responses = ResponseRepository(session)
            found = await responses.forgotten(FORGOTTEN_SECONDS, _FORGOTTEN_AT_ONCE)
            await responses.touch([response_id for _, response_id in found])
            for project, response_id in found:
                # It fails in any process but its own, which is gone: it would touch the row.
                payload = {"project": project, "id": response_id}
                await self._queue.put(session, "run_response", payload)
        if found:
            logger.warning("Responses whose process is gone: %d", len(found))
            self._queue.wake()
        return len(found)


def _principal(row: ResponseRow) -> Principal:
    """On whose behalf it is made."""
    return Principal.restored(row.project, (row.request or {}).get("principal"))


def _decoded(row: ResponseRow, body: dict[str, Any]) -> CreateResponse:
    """The request; of one that this version can't read any more, what names it."""
    try:
        return decode(body)
    except InvalidRequest:
        return CreateResponse(model=row.model, background=True)


def _passes(error: GatewayError) -> bool:
    """Whether another attempt may go better: a model server that is away, full or was killed."""
    return (
        error.nothing_sent
        or error.code == "upstream_disconnected"
        # A gateway that has just begun may not have found its models yet.
        or isinstance(error, UpstreamUnavailable | RateLimited | ModelNotFound)
    )
