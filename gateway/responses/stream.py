"""The events of a response's stream, in their order."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.items.including import shown
from gateway.responses.run import Run, leave

__all__ = ["TERMINAL", "Nowhere", "ResponseStream", "Sink"]


class Sink(Protocol):
    """Takes one event after the other; ``begun`` says whether anybody has seen one."""

    begun: bool

    async def __call__(self, event: dict[str, Any]) -> None: ...


TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Exactly one of these ends a stream."""


class Nowhere:
    """A sink for responses that nobody streams."""

    begun = False

    async def __call__(self, event: dict[str, Any]) -> None:
        """Let it go."""


class ResponseStream:
    """Numbers events and hands them on. Tools that run at once may use it at once."""

    def __init__(self, run: Run, sink: Sink, *, first: int = 0) -> None:
        self.run = run
        self._sink = sink
        self._turn = asyncio.Lock()
        self._begun: set[int] = set()
        """The places of items that are not done."""
        self.next_number = first

    async def emit(self, kind: str, **fields: Any) -> None:
        """One event. What it holds isn't changed later: items are shown as copies, and what is in
        them is replaced, not altered.
        """
        async with self._turn:
            event = {"type": kind, "sequence_number": self.next_number, **fields}
            self.next_number += 1
            await self._sink(event)

    async def respond(self, kind: str) -> None:
        """An event about the response as a whole, as it is now."""
        response = self.run.shown()
        await self.emit(kind, response={**response, "output": [{**i} for i in response["output"]]})

    async def add(self, item: dict[str, Any]) -> int:
        """A new item of the output; its place there."""
        self.run.output.append(item)
        index = len(self.run.output) - 1
        self._begun.add(index)
        await self.emit("response.output_item.added", output_index=index, item=self._shown(item))
        return index

    async def about(self, index: int, kind: str, **fields: Any) -> None:
        """An event about the item at this place."""
        await self.emit(kind, item_id=self.run.output[index]["id"], output_index=index, **fields)

    async def done(self, index: int) -> None:
        """The item at this place is what it will be."""
        item = self.run.output[index]
        self._begun.discard(index)
        await self.emit("response.output_item.done", output_index=index, item=self._shown(item))

    async def leave(self) -> None:
        """The items that were begun stay as they are: nobody goes on with them."""
        for index in sorted(self._begun):
            leave(self.run.output[index])
            await self.done(index)

    def _shown(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**shown(item, self.run.include)}
