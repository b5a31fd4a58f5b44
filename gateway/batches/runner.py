"""What a worker does with a batch.

::

    validating ──> in_progress ──> finalizing ──> completed | expired | failed
        │  └─> failed    │                            (files are written)
        └────────┬───────┘
             cancelling ────────────────────────> cancelled

The row says where a batch is, and nothing else does: a worker does what is due in that status
until the row says another one, by its own doing or a caller's. So any worker can go on at any
point, and a line that has a row is not done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from gateway.batches.answers import AnswerWriter
from gateway.batches.claims import BatchClaims, BatchState, Claim, NotWanted
from gateway.batches.executor import LineExecutor
from gateway.batches.output import BatchFiles
from gateway.batches.pacing import Pacer, Traffic
from gateway.batches.passes import BatchPass
from gateway.batches.results import LineSink
from gateway.batches.schemas import BatchError
from gateway.batches.validation import Validator
from gateway.database.identifiers import now
from gateway.errors import NotFound, UpstreamError
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.observability.telemetry import Telemetry
from gateway.ports import Job, TryAgain
from gateway.routing.catalog import Catalog
from gateway.settings import BatchSettings

__all__ = ["BatchRunner"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""How soon a worker sees that a batch is cancelled or another worker's."""

_LOOKS_TO_A_TOUCH = 4
_MODELS_COME_SECONDS = 600
"""How long a batch waits for a server that hasn't answered since the start and may have its
model."""

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0
_LAST_WORD_SECONDS = 3.0

ResultT = TypeVar("ResultT")


class BatchRunner:
    """The handlers of ``run_batch`` and ``cancel_batch``."""

    def __init__(
        self,
        claims: BatchClaims,
        files: BatchFiles,
        executor: LineExecutor,
        *,
        catalog: Catalog,
        answers: AnswerWriter,
        telemetry: Telemetry,
        settings: BatchSettings,
        longest_line: int,
    ) -> None:
        self._claims = claims
        self._files = files
        self._executor = executor
        self._catalog = catalog
        self._answers = answers
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._settings = settings
        self._longest_line = longest_line
        self._traffic = Traffic()
        self._validator = Validator(
            catalog, max_lines=settings.max_lines, longest_line=longest_line
        )

    async def run(self, job: Job) -> None:
        """Bring a batch to its end. Raises ``TryAgain`` where a model server is away."""
        await self._take_up(job, extra=job.payload.get("reminder", False))

    async def cancel(self, job: Job) -> None:
        """The same for one that is cancelled, unless its worker does that."""
        await self._take_up(job, extra=True)

    async def _take_up(self, job: Job, *, extra: bool) -> None:
        project, batch_id = job.payload["project"], job.payload["id"]
        claim = await self._claims.claim(project, batch_id, extra=extra)
        if claim is None:
            return
        again: TryAgain | None = None
        self._metrics.active_batches.inc()
        try:
            with Activity.of_job(
                self._telemetry,
                "batch",
                caused_by=claim.traceparent,
                attributes={
                    semconv.BATCH_ID: batch_id,
                    semconv.BATCH_ENDPOINT: claim.endpoint,
                    semconv.BATCH_ATTEMPT: claim.attempt,
                },
            ) as activity:
                try:
                    status = await self._go_on(claim, activity, job.attempt)
                except NotWanted:
                    status = "dropped"
                except TryAgain as raised:
                    status, again = "waiting", raised
                activity.attributes[semconv.BATCH_STATUS] = status
        finally:
            self._metrics.active_batches.dec()
        if again is not None:
            with suppress(NotWanted):
                await self._claims.let_go(claim)
            raise again

    async def _go_on(self, claim: Claim, activity: Activity, attempt: int) -> str:
        """Do what is due until the batch is over; what it ended in.

        Raises ``NotWanted`` and ``TryAgain``.
        """
        while True:
            state = await self._claims.state(claim)
            match state.status:
                case "validating":
                    if await self._while(claim, state, self._validate(claim, activity)):
                        return "failed"
                case "in_progress":
                    await self._while(claim, state, self._work(claim, activity, attempt))
                case _:
                    outcome = state.outcome or "cancelled"
                    await self._while(claim, state, self._finish(claim, activity, state, outcome))
                    await self._claims.remove_lines(claim)
                    return outcome

    # -- the watch ------------------------------------------------------------------------------

    async def _while(
        self, claim: Claim, state: BatchState, work: Coroutine[Any, Any, ResultT]
    ) -> ResultT | None:
        """Do the work for as long as the batch has this status; ``None`` where it got another."""
        working = asyncio.create_task(work)
        watching = asyncio.create_task(self._watch(claim, state.status))
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.wait((working, watching))
        if not working.cancelled():
            return working.result()
        watching.result()
        return None

    async def _watch(self, claim: Claim, status: str) -> None:
        """Return once the status is another one. Raises ``NotWanted``."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            looks += 1
            try:
                state = await self._claims.state(claim, touch=looks % _LOOKS_TO_A_TOUCH == 0)
                if state.status != status or await self._expire(claim, status):
                    return
            except UpstreamError:
                continue  # the database is away; the worker's own lease says for how long

    async def _expire(self, claim: Claim, status: str) -> bool:
        """Whether its time is over; from then on no line is done."""
        if status not in ("validating", "in_progress") or now() < claim.expires_at:
            return False
        await self._claims.finalize(claim, "expired")
        return True

    # -- what is due ----------------------------------------------------------------------------

    async def _validate(self, claim: Claim, activity: Activity) -> bool:
        """Whether the batch has failed with that."""
        if await self._expire(claim, "validating"):
            return False
        kinds = self._executor.endpoints.get(claim.endpoint, ())
        with activity.step("validate"):
            try:
                content = await self._files.input(claim)
                found = await self._validator.check(
                    content, claim.endpoint, kinds, claim.principal.models
                )
            except NotFound:
                return await self._claims.fail(claim, [_input_gone(claim)])
        if (
            found.unknown_models
            and not self._catalog.complete
            and now() < claim.created_at + _MODELS_COME_SECONDS
        ):
            raise TryAgain(_FIRST_PAUSE_SECONDS, "a model server has not answered yet")
        if found.errors:
            return await self._claims.fail(claim, found.errors)
        await self._claims.begin(claim, found)
        return False

    async def _work(self, claim: Claim, activity: Activity, attempt: int) -> None:
        if await self._expire(claim, "in_progress"):
            return
        sink = LineSink(self._claims, claim)
        one = BatchPass(
            claim,
            activity,
            executor=self._executor,
            catalog=self._catalog,
            pacer=Pacer(self._settings, self._traffic),
            sink=sink,
            answers=self._answers,
            metrics=self._metrics,
            settings=self._settings,
            longest_line=self._longest_line,
        )
        writing = asyncio.create_task(sink.run())
        try:
            content = await self._files.input(claim)
            await one.run(content, await self._claims.done_lines(claim))
            await sink.flush()
        except NotFound:
            await sink.flush()
            await self._claims.finalize(claim, "failed", [_input_gone(claim)])
            return
        except asyncio.CancelledError:
            await _in_spite_of_cancellation(sink)
            raise
        finally:
            writing.cancel()
            await asyncio.wait((writing,))
        if one.set_aside:
            pause = min(_FIRST_PAUSE_SECONDS * attempt, _LONGEST_PAUSE_SECONDS)
            pause = max(0.0, min(pause, claim.expires_at - now()))
            raise TryAgain(pause, f"{one.set_aside} lines wait for their model's server")
        await self._claims.finalize(claim, "completed")

    async def _finish(
        self, claim: Claim, activity: Activity, state: BatchState, outcome: str
    ) -> None:
        """Write the files, then say that they are there."""
        with activity.step("write files"):
            if outcome == "expired" and state.total:
                await self._files.fill_with_expired(claim)
            output = await self._files.write(claim, failed=False)
            errors = None
            try:
                errors = await self._files.write(claim, failed=True)
                await self._claims.finish(claim, outcome, output, errors)
            except NotWanted:
                await self._files.discard(output, errors)
                raise
        logger.info("%s is %s", claim.batch_id, outcome)


def _input_gone(claim: Claim) -> BatchError:
    return BatchError(
        "input_file_not_found",
        f"The input file {claim.input_file_id} was deleted or has expired before all of it was "
        "read.",
        "input_file_id",
    )


async def _in_spite_of_cancellation(sink: LineSink) -> None:
    """Write what is done, a matter of milliseconds, though the task is being cancelled."""
    try:
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await asyncio.shield(asyncio.create_task(sink.flush()))
    except (NotWanted, TimeoutError):
        logger.warning("The last results of a batch were not written; those lines are done again")
