"""What callers were told is done, and whether it is there in the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import openai
from openai import AsyncOpenAI

SETTLE_SECONDS = 180.0

_AT_ONCE = 6
_PROBES = 30
_IN_WORK = ("queued", "in_progress", "validating", "finalizing")


@dataclass
class Ledger:
    """Of one project. Only what was acknowledged is in it."""

    project: str
    files: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    attached: dict[tuple[str, str], str] = field(default_factory=dict)
    """Store and file, and the words by which it is found."""
    responses: dict[str, str] = field(default_factory=dict)
    """By id, the words that its answer has."""
    background: set[str] = field(default_factory=set)
    batches: dict[str, list[str]] = field(default_factory=dict)
    """By id, the words of each line."""

    def counts(self) -> Counter[str]:
        return Counter(
            files=len(self.files),
            deleted=len(self.deleted),
            stores=len(self.stores),
            attached=len(self.attached),
            responses=len(self.responses),
            batches=len(self.batches),
        )


async def check(ledger: Ledger, client: AsyncOpenAI, others: list[Ledger]) -> list[str]:
    """What is wrong, in words; nothing where all is well."""
    looks = Looks(ledger, client)
    await looks.all()
    await looks.strangers(others)
    return looks.wrong


class Looks:
    """One look at each object of a ledger, a few at the same time."""

    def __init__(self, ledger: Ledger, client: AsyncOpenAI) -> None:
        self.wrong: list[str] = []
        self._ledger = ledger
        self._client = client
        self._hands = asyncio.Semaphore(_AT_ONCE)
        self._deadline = time.monotonic() + SETTLE_SECONDS

    async def all(self) -> None:
        ledger = self._ledger
        looks = [
            *(self._file(id_, data) for id_, data in ledger.files.items()),
            *(self._deleted(id_) for id_ in ledger.deleted),
            *(self._attached(*where, words) for where, words in ledger.attached.items()),
            *(self._response(id_, words) for id_, words in ledger.responses.items()),
            *(self._batch(id_, lines) for id_, lines in ledger.batches.items()),
        ]
        async with asyncio.TaskGroup() as group:
            for look in looks:
                group.create_task(self._one(look))

    async def _one(self, look: Coroutine[Any, Any, None]) -> None:
        async with self._hands:
            try:
                await look
            except openai.APIError as error:
                self.wrong.append(f"{look.__name__}: {error!r}")

    async def _over(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """What it is once it is no longer in work, or when there is no more time."""
        shown = await read()
        while shown.status in _IN_WORK and time.monotonic() < self._deadline:
            await asyncio.sleep(0.5)
            shown = await read()
        return shown

    async def _file(self, id_: str, data: bytes) -> None:
        try:
            if (await self._client.files.content(id_)).content != data:
                self.wrong.append(f"file {id_} has other bytes")
        except openai.NotFoundError:
            self.wrong.append(f"file {id_} is lost")

    async def _deleted(self, id_: str) -> None:
        try:
            await self._client.files.retrieve(id_)
        except openai.NotFoundError:
            return
        self.wrong.append(f"file {id_} is there again")

    async def _attached(self, store: str, file: str, words: str) -> None:
        files = self._client.vector_stores.files
        shown = await self._over(lambda: files.retrieve(file, vector_store_id=store))
        if shown.status != "completed":
            self.wrong.append(f"file {file} in {store} is {shown.status}: {shown.last_error}")
            return
        found = await self._client.vector_stores.search(store, query=words, max_num_results=3)
        if file not in [one.file_id for one in found.data]:
            self.wrong.append(f"file {file} in {store} is not found by {words!r}")

    async def _response(self, id_: str, words: str) -> None:
        shown = await self._over(lambda: self._client.responses.retrieve(id_))
        if shown.status != "completed":
            self.wrong.append(f"response {id_} is {shown.status}: {shown.error}")
        elif words not in shown.output_text:
            self.wrong.append(f"response {id_} says {shown.output_text!r}, not {words!r}")

    async def _batch(self, id_: str, lines: list[str]) -> None:
        shown = await self._over(lambda: self._client.batches.retrieve(id_))
        if shown.status != "completed" or shown.output_file_id is None:
            self.wrong.append(f"batch {id_} is {shown.status}: {shown.request_counts}")
            return
        output = (await self._client.files.content(shown.output_file_id)).text.splitlines()
        said = {one["custom_id"]: _said(one) for one in map(json.loads, output)}
        if not all(words in said.get(words, "") for words in lines):
            self.wrong.append(f"batch {id_} has {len(said)} of {len(lines)} answers")

    async def strangers(self, others: list[Ledger]) -> None:
        """Nothing of another project can be read or listed."""
        client = self._client
        foreign = {id_ for other in others for id_ in (*other.files, *other.stores)}
        listed = {one.id async for one in client.files.list(limit=1000)}
        listed |= {one.id async for one in client.vector_stores.list(limit=100)}
        self.wrong += [f"{id_} is shown to {self._ledger.project}" for id_ in listed & foreign]
        for other in others:
            reads: list[tuple[Any, Iterable[str]]] = [
                (client.files.retrieve, other.files),
                (client.vector_stores.retrieve, other.stores),
                (client.responses.retrieve, other.responses),
                (client.batches.retrieve, other.batches),
            ]
            for read, ids in reads:
                for id_ in itertools.islice(ids, _PROBES):
                    await self._stranger(read, id_)

    async def _stranger(self, read: Callable[[str], Awaitable[Any]], id_: str) -> None:
        try:
            await read(id_)
        except openai.NotFoundError:
            return
        self.wrong.append(f"{self._ledger.project} can read {id_}")


def _said(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])
