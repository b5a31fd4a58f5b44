"""Going through a batch's lines once, doing those that aren't done."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection
from contextlib import aclosing

from gateway.batches.answers import AnswerWriter
from gateway.batches.claims import Claim, DoneLine
from gateway.batches.executor import LineExecutor
from gateway.batches.lines import LineRequest, parse_line, read_lines
from gateway.batches.pacing import Pacer
from gateway.batches.results import LineSink
from gateway.errors import (
    GatewayError,
    ModelNotFound,
)
from gateway.http.download import Content
from gateway.observability.activity import Activity
from gateway.observability.metrics import Metrics
from gateway.ports import ModelServer
from gateway.relay.admission import Turns
from gateway.routing.catalog import Catalog
from gateway.settings import BatchSettings

__all__ = ["BatchPass"]

logger = logging.getLogger(__name__)

_BUSY = frozenset({429, 503})
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


_BYTES_A_TOKEN = 4
"""About."""


class BatchPass:
    """One pass of one batch.

    A line whose model's server is away is set aside, and with it, for this pass, all lines of that
    model: a later pass does them. A line that the server fails at is tried again and ends, after
    ``max_attempts``, in the error file. One that finds its server gone after it has failed there
    waits for it, so that a line which breaks servers does so that often and no more.
    """

    def __init__(
        self,
        claim: Claim,
        activity: Activity,
        *,
        executor: LineExecutor,
        catalog: Catalog,
        pacer: Pacer,
        turns: Turns,
        sink: LineSink,
        answers: AnswerWriter,
        metrics: Metrics,
        settings: BatchSettings,
        longest_line: int,
    ) -> None:
        self._claim = claim
        self._activity = activity
        self._executor = executor
        self._catalog = catalog
        self._pacer = pacer
        self._turns = turns
        self._sink = sink
        self._answers = answers
        self._metrics = metrics
        self._max_attempts = settings.max_attempts
        self._lanes = asyncio.Semaphore(settings.concurrency)
        self._longest_line = longest_line
        self._away: set[str] = set()
        self._answered_at: dict[str, float] = {}
        self.set_aside = 0
        """How many lines are left for a later pass."""

    async def run(self, content: Content, done: Collection[int]) -> None:
        """Raises what the content raises, and ``NotWanted``."""
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(read_lines(content, self._longest_line)) as lines,
            ):
                async for line in lines:
                    if line.number in done or line.content is None:
                        continue
                    request = parse_line(line.content, self._claim.endpoint)
                    if request.model in self._away:
                        self.set_aside += 1
                        continue
                    await self._lanes.acquire()
                    task = group.create_task(self._line(line.number, request))
                    task.add_done_callback(lambda _: self._lanes.release())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _line(self, number: int, request: LineRequest) -> None:
        began = time.monotonic()
        done = await self._attempts(number, request)
        if done is None:
            self.set_aside += 1
            return
        await self._sink.add(done)
        outcome = "failed" if done.failed else "completed"
        self._metrics.batch_line_ended(outcome, time.monotonic() - began)

    async def _attempts(self, number: int, request: LineRequest) -> DoneLine | None:
        """``None`` where the line is set aside."""
        began = time.monotonic()
        failures = waits = 0
        while True:
            try:
                done = await self._attempt(number, request)
            except GatewayError as error:
                if error.nothing_sent or isinstance(error, _Gone):
                    if not failures:
                        self._away.add(request.model)
                        return None
                elif error.status in _BUSY or error.status >= 500:
                    failures += 1
                else:
                    return self._answers.refused(number, request.custom_id, error)
                if failures >= self._max_attempts:
                    if error.status in _BUSY and not self._answers_since(request.model, began):
                        self._away.add(request.model)  # it isn't this line: the server takes none
                        return None
                    return self._answers.refused(number, request.custom_id, error)
                waits += 1
                await asyncio.sleep(_pause(waits, error.retry_after))
            else:
                self._answered_at[request.model] = time.monotonic()
                return done

    async def _attempt(self, number: int, request: LineRequest) -> DoneLine:
        """Raises ``GatewayError``."""
        servers = self._servers(request.model)
        size = sum(map(len, request.body.values()))
        permit = self._turns.turn(self._claim.principal, request.model, size // _BYTES_A_TOKEN)
        async with self._pacer.turn(servers, permit) as turn:
            try:
                body = await self._executor.run(
                    self._claim.principal, self._activity, self._claim.endpoint, request.body
                )
            except GatewayError as error:
                if error.status in _BUSY:
                    turn.refused(error.retry_after)
                raise
            except Exception as error:
                logger.exception("Line %d of %s failed", number, self._claim.batch_id)
                raise GatewayError(
                    f"An internal error ({type(error).__name__}); the gateway's log has more."
                ) from error
            done = self._answers.answered(number, request.custom_id, body)
            turn.answered(done.tokens.output)
            return done

    def _servers(self, name: str) -> Collection[ModelServer]:
        """Raises ``_Gone`` for a model that was there when the batch began."""
        try:
            return {backend.server for backend in self._catalog.get(name).backends}
        except ModelNotFound as error:
            raise _Gone(error.message) from None

    def _answers_since(self, model: str, moment: float) -> bool:
        return self._answered_at.get(model, 0.0) >= moment


class _Gone(ModelNotFound):
    """A model that isn't known now: its server has not been there since this process began."""


def _pause(waits: int, retry_after: int | None) -> float:
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(waits - 1, 10))
    pause = longest * random.uniform(0.5, 1)  # noqa: S311  (no secret)
    return max(pause, min(retry_after or 0, _LONGEST_PAUSE_SECONDS))
