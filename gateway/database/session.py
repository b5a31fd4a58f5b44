"""A session whose statements are never cut off in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["WholeSession"]

T = TypeVar("T")


class WholeSession(AsyncSession):
    """Cancelled in the middle of a statement, it finishes that one first.

    A request whose caller leaves is cancelled wherever it stands. SQLAlchemy then throws the
    connection away while its thread is still at the statement, and SQLite has been seen to stay
    locked for every other writer (SQLAlchemy 2.1 with aiosqlite 0.22). Statements are short and
    bounded in time; the cancellation goes on when the one at hand is over, and the transaction is
    rolled back in order.
    """

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await _whole(super().execute(*arguments, **options))

    async def get(self, *arguments: Any, **options: Any) -> Any:
        return await _whole(super().get(*arguments, **options))

    async def flush(self, *arguments: Any, **options: Any) -> None:
        await _whole(super().flush(*arguments, **options))

    async def connection(self, *arguments: Any, **options: Any) -> Any:
        return await _whole(super().connection(*arguments, **options))

    async def commit(self) -> None:
        await _whole(super().commit())

    async def rollback(self) -> None:
        await _whole(super().rollback())

    async def close(self) -> None:
        await _whole(super().close())


async def _whole(operation: Coroutine[Any, Any, T]) -> T:
    """The result; a cancellation waits until the operation is over, and then goes on."""
    task = asyncio.ensure_future(operation)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # once more: it is the same answer
                continue
        if not task.cancelled():
            task.exception()  # seen; what counts now is that it was cancelled
        raise
