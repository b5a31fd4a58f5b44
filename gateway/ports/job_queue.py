"""Work that outlives the request that asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Handler", "Job", "JobQueue", "TryAgain"]


class Job(Struct, frozen=True, kw_only=True):
    """One piece of work. ``attempt`` counts from 1."""

    id: str
    kind: str
    """Which handler does it: ``ingest_file``, ``delete_store`` …"""
    payload: dict[str, Any]
    attempt: int = 1


class TryAgain(Exception):
    """Raised by a handler: not now, but after so many seconds."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.reason = reason


Handler = Callable[[Job], Awaitable[None]]


class JobQueue(Protocol):
    """A durable queue in the database.

    A worker that takes a job holds a lease on it and renews it; when the worker dies, another one
    takes the job once the lease is over. So a job runs at least once and, but for a worker that
    was frozen past its lease, never twice at the same time: handlers are idempotent and check in
    the database that what they do is still wanted.
    """

    async def start(self) -> None:
        """Make ready (the library's own tables and connections). Safe on several replicas."""

    async def put(
        self, session: AsyncSession, kind: str, payload: Mapping[str, Any], *, delay: float = 0
    ) -> str:
        """Add a job in the caller's transaction: it is there if, and only if, that commits.

        Returns its id. ``delay`` is in seconds.
        """

    def wake(self) -> None:
        """A job was committed: look at once. For the workers of this process only."""

    async def work(self, handlers: Mapping[str, Handler], *, concurrency: int) -> None:
        """Take jobs and run their handlers until cancelled; then leases of unfinished jobs are
        given back at once, and they run again elsewhere.

        A handler that raises ``TryAgain`` is run again after that time; one that raises anything
        else again with growing pauses, for ever, since nothing acknowledged may be lost: handlers
        give up by themselves, by ``attempt``. A kind without a handler is left to other workers.
        """

    async def aclose(self) -> None:
        """Close connections."""
