"""Doing the same with several things at once, which must succeed with all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from gateway.errors import GatewayError

__all__ = ["all_of"]

_AT_ONCE = 8

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def all_of(
    do: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT]
) -> list[ResultT]:
    """The results in their order. The first ``GatewayError`` ends the others and is raised.

    A few run at a time, so that who brings a thousand does not push in before everybody else.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(item: ItemT) -> ResultT:
        async with turns:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(item)) for item in items]
    except* GatewayError as failed:
        error: BaseException = failed
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    return [task.result() for task in tasks]
