"""Responses in the background, for tests of what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from sqlalchemy import select

from gateway.database.engine import Database
from gateway.database.tables import ResponseEventsRow

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
OVER = ("completed", "incomplete", "failed", "cancelled")
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def created(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """A new response of the fake model."""
    answer = await client.post("/v1/responses", json={"model": "fake-chat", "input": "Hi.", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def over(client: httpx.AsyncClient, response_id: str, within: float = 30) -> dict[str, Any]:
    """The response, once it has come to its end."""
    return await settled(client, response_id, OVER, within)


async def settled(
    client: httpx.AsyncClient, response_id: str, statuses: Sequence[str], within: float = 30
) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within):
            while True:
                answer = await client.get(f"/v1/responses/{response_id}")
                shown = answer.json()
                if shown.get("status") in statuses:
                    return shown
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"not {statuses} within {within:g} s: {shown}") from None


async def stored_events(database: Database, response_id: str) -> list[dict[str, Any]]:
    """What is kept of its stream."""
    row = ResponseEventsRow
    async with database.read() as session:
        found = await session.execute(
            select(row.events).where(row.response_id == response_id).order_by(row.first)
        )
        return [
            msgspec.json.decode(line) for lines in found.scalars() for line in lines.splitlines()
        ]


def check_events(events: Sequence[dict[str, Any]], *, first: int = 0) -> None:
    """Each is one of OpenAI's, strictly; their numbers rise; the last one alone is terminal."""
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers)), numbers
    assert numbers[0] == first
    for event in events:
        _EVENT.validate_python(event)
    kinds = [event["type"] for event in events]
    assert [kind for kind in kinds if kind in TERMINAL] == kinds[-1:], kinds


def text_of(shown: dict[str, Any]) -> str:
    """All that the model has said."""
    return Response.model_validate(shown).output_text


class Follower:
    """Reads the events of a stream as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.events: list[dict[str, Any]] = []
        self.pings = 0
        self._lines = answer.aiter_lines()

    async def next(self, within: float = 30) -> dict[str, Any] | None:
        """The next event; ``None`` at the end."""
        async with asyncio.timeout(within):
            async for line in self._lines:
                self.pings += line.startswith(":")
                if line.startswith("data: "):
                    event: dict[str, Any] = msgspec.json.decode(line[6:])
                    self.events.append(event)
                    return event
        return None

    async def until(self, kind: str, within: float = 30) -> dict[str, Any]:
        """The next event of this type."""
        async with asyncio.timeout(within):
            while (event := await self.next()) is not None:
                if event["type"] == kind:
                    return event
        raise AssertionError(f"no {kind} in {[event['type'] for event in self.events]}")

    async def to_the_end(self) -> list[dict[str, Any]]:
        while await self.next() is not None:
            pass
        return self.events
