"""A worker's hold on a batch: every change of a batch in work is guarded by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, delete, insert, select, update

from gateway.batches.schemas import OVER, BatchError
from gateway.batches.validation import Findings
from gateway.database.engine import Database
from gateway.database.identifiers import now, seconds
from gateway.database.tables import BatchLineRow, BatchRow, FileRow
from gateway.files.repository import FileRepository
from gateway.identity.principal import Principal
from gateway.ports import TryAgain

__all__ = ["BatchClaims", "BatchState", "Claim", "DoneLine", "NotWanted", "Tokens"]

_TOUCHED_SECONDS = 6
"""A batch that was touched so lately is in a living worker's hands."""

_BUSY_SECONDS = 2.0
_REMOVED_AT_ONCE = 1000


class NotWanted(Exception):
    """The batch is over, or another worker has taken it up."""


class Claim(Struct, frozen=True, kw_only=True):
    """The right to work on a batch, until the row's ``attempt`` is another one."""

    batch_id: str
    principal: Principal
    """On whose behalf the work is done."""
    attempt: int
    endpoint: str
    input_file_id: str
    created_at: int
    expires_at: int
    output_seconds: int | None
    traceparent: str | None

    @property
    def project(self) -> str:
        return self.principal.project


class BatchState(Struct, frozen=True):
    """``outcome`` is what it is to end in, once no more lines are done; ``total`` is 0 until it
    was validated.
    """

    status: str
    outcome: str | None
    total: int


class Tokens(Struct, frozen=True, kw_only=True):
    """What an answer cost."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class DoneLine(Struct, frozen=True, kw_only=True):
    """A line with its line of the output or error file."""

    number: int
    failed: bool
    result: str
    tokens: Tokens = Tokens()


class BatchClaims:
    """All that a worker reads and writes of batches and their lines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, project: str, batch_id: str, *, extra: bool = False) -> Claim | None:
        """Take a batch up; ``None`` where it is over. Whoever had it before has lost it with this.

        ``extra`` is for a job beside the batch's own: a batch in another worker's hands stays
        there. Raises ``TryAgain`` where that worker is still to end it.
        """
        async with self._database.begin() as session:
            row = (
                await session.execute(
                    select(BatchRow)
                    .where(BatchRow.project == project, BatchRow.id == batch_id)
                    .with_for_update()
                )
            ).scalar_one_or_none()
            if row is None or row.status in OVER:
                return None
            if extra and row.attempt > 0 and row.touched_at > now() - _TOUCHED_SECONDS:
                if row.status == "cancelling":
                    raise TryAgain(_BUSY_SECONDS, "its worker is about to end it")
                return None
            row.attempt += 1
            row.touched_at = now()
            return Claim(
                batch_id=row.id,
                principal=Principal.restored(project, row.principal),
                attempt=row.attempt,
                endpoint=row.endpoint,
                input_file_id=row.input_file_id,
                created_at=seconds(row.sequence),
                expires_at=row.expires_at,
                output_seconds=row.output_seconds,
                traceparent=row.traceparent,
            )

    async def state(self, claim: Claim, *, touch: bool = False) -> BatchState:
        """Where the batch is now. Raises ``NotWanted``."""
        if touch:
            await self._change(claim, touched_at=now())
        async with self._database.read() as session:
            found = await session.execute(
                select(BatchRow.status, BatchRow.outcome, BatchRow.total).where(*_held(claim))
            )
            row = found.one_or_none()
        if row is None:
            raise NotWanted
        return BatchState(row.status, row.outcome, row.total)

    async def let_go(self, claim: Claim) -> None:
        """Nobody has it in hand until its job is due again. Raises ``NotWanted``."""
        await self._change(claim, touched_at=now() - _TOUCHED_SECONDS)

    async def begin(self, claim: Claim, findings: Findings) -> None:
        """From ``validating`` to ``in_progress``; nothing where it isn't validating any more."""
        await self._change(
            claim,
            BatchRow.status == "validating",
            status="in_progress",
            in_progress_at=now(),
            total=findings.total,
            model=findings.model,
        )

    async def fail(self, claim: Claim, errors: Sequence[BatchError]) -> bool:
        """From ``validating`` to ``failed``; whether it is."""
        return await self._change(
            claim,
            BatchRow.status == "validating",
            status="failed",
            failed_at=now(),
            errors=msgspec.to_builtins(errors),
        )

    async def finalize(self, claim: Claim, outcome: str, errors: Sequence[BatchError] = ()) -> None:
        """No more lines are done: from ``validating`` or ``in_progress`` to ``finalizing``."""
        await self._change(
            claim,
            BatchRow.status.in_(("validating", "in_progress")),
            status="finalizing",
            outcome=outcome,
            finalizing_at=now(),
            **({"errors": msgspec.to_builtins(errors)} if errors else {}),
        )

    async def finish(
        self, claim: Claim, outcome: str, output: FileRow | None, errors: FileRow | None
    ) -> None:
        """It is over, and its files are there. Raises ``NotWanted``: then they are not."""
        async with self._database.begin() as session:
            done = await session.execute(
                update(BatchRow)
                .where(*_held(claim))
                .values(
                    status=outcome,
                    output_file_id=None if output is None else output.id,
                    error_file_id=None if errors is None else errors.id,
                    **{f"{outcome}_at": now()},
                )
                .execution_options(synchronize_session=False)
            )
            if not _changed(done):
                raise NotWanted
            for file in (output, errors):
                if file is not None:
                    FileRepository(session).add(file)

    async def _change(self, claim: Claim, *where: ColumnElement[bool], **values: Any) -> bool:
        """Whether ``where`` was true and it was done. Raises ``NotWanted``."""
        async with self._database.begin() as session:
            done = await session.execute(
                update(BatchRow)
                .where(*_held(claim), *where)
                .values(**{"touched_at": now(), **values})
                .execution_options(synchronize_session=False)
            )
            if not _changed(done):
                held = await session.execute(select(BatchRow.id).where(*_held(claim)))
                if held.first() is None:
                    raise NotWanted
            return _changed(done)

    # -- lines ----------------------------------------------------------------------------------

    async def done_lines(self, claim: Claim) -> set[int]:
        """The numbers of the lines that are done."""
        async with self._database.read() as session:
            found = await session.execute(select(BatchLineRow.position).where(*_lines(claim)))
            return set(found.scalars())

    async def add_lines(self, claim: Claim, lines: Sequence[DoneLine]) -> None:
        """These are done, all of them or none; those that are there already stay as they are.

        Raises ``NotWanted``.
        """
        numbers = [line.number for line in lines]
        async with self._database.begin() as session:
            held = await session.execute(select(BatchRow).where(*_held(claim)).with_for_update())
            row = held.scalar_one_or_none()
            if row is None:
                raise NotWanted
            known = await session.execute(
                select(BatchLineRow.position).where(
                    *_lines(claim), BatchLineRow.position.in_(numbers)
                )
            )
            there = set(known.scalars())
            new = [line for line in lines if line.number not in there]
            if not new:
                return
            await session.execute(
                insert(BatchLineRow),
                [
                    {
                        "batch_id": claim.batch_id,
                        "position": line.number,
                        "project": claim.project,
                        "failed": line.failed,
                        "result": line.result,
                    }
                    for line in new
                ],
            )
            row.touched_at = now()
            row.failed += sum(line.failed for line in new)
            row.completed += sum(not line.failed for line in new)
            row.input_tokens += sum(line.tokens.input for line in new)
            row.cached_tokens += sum(line.tokens.cached for line in new)
            row.output_tokens += sum(line.tokens.output for line in new)
            row.reasoning_tokens += sum(line.tokens.reasoning for line in new)

    async def results(self, claim: Claim, *, failed: bool, after: int, limit: int) -> list[Any]:
        """Numbers and results of up to ``limit`` lines behind this number, in order."""
        async with self._database.read() as session:
            found = await session.execute(
                select(BatchLineRow.position, BatchLineRow.result)
                .where(
                    *_lines(claim), BatchLineRow.failed.is_(failed), BatchLineRow.position > after
                )
                .order_by(BatchLineRow.position)
                .limit(limit)
            )
            return list(found.all())

    async def remove_lines(self, claim: Claim) -> None:
        """The batch's files hold them. A bounded number in each transaction."""
        while True:
            some = (
                select(BatchLineRow.position)
                .where(*_lines(claim))
                .order_by(BatchLineRow.position)
                .limit(_REMOVED_AT_ONCE)
            )
            async with self._database.begin() as session:
                last = (await session.execute(some)).scalars().all()
                if last:
                    await session.execute(
                        delete(BatchLineRow)
                        .where(*_lines(claim), BatchLineRow.position <= last[-1])
                        .execution_options(synchronize_session=False)
                    )
            if len(last) < _REMOVED_AT_ONCE:
                return


def _changed(result: Any) -> bool:
    return bool(result.rowcount)


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        BatchRow.project == claim.project,
        BatchRow.id == claim.batch_id,
        BatchRow.attempt == claim.attempt,
        BatchRow.status.not_in(OVER),
    )


def _lines(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (BatchLineRow.project == claim.project, BatchLineRow.batch_id == claim.batch_id)
