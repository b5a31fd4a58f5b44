"""The actors of one project. Each does one thing after the other, until told to stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI

from tests.soak.ledger import Ledger

CHAT, EMBEDDING = "fake-chat", "fake-embedding"
FILE_SECONDS = 60.0

ResultT = TypeVar("ResultT")


@dataclass
class Failure:
    """A request that ended otherwise than it should, and when it began and ended."""

    what: str
    began: float
    ended: float
    error: str


@dataclass
class Log:
    """What all requests came to."""

    done: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[Failure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that are somebody else's, which no death excuses."""


class LostError(Exception):
    """The request failed; it is in the log."""


class Actors:
    def __init__(self, client: AsyncOpenAI, ledger: Ledger, log: Log, seed: int) -> None:
        self._client = client
        self._ledger = ledger
        self._log = log
        self._chance = random.Random(seed)
        self._numbers = itertools.count()

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [self.chat, self.stream, self.embed, self.file, self.store, self.respond, self.batch]

    async def run(self, act: Callable[[], Awaitable[None]], over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await act()
            except LostError:
                await asyncio.sleep(0.1)
            await asyncio.sleep(self._chance.uniform(0.02, 0.3))

    # -- what they do --------------------------------------------------------------------------

    async def chat(self) -> None:
        words = self._words()
        answer = await self._call(
            "chat",
            self._client.chat.completions.create(model=CHAT, messages=_asking(words)),
        )
        self._is_ours(words, answer.choices[0].message.content)

    async def stream(self) -> None:
        words = self._words()

        async def read() -> str:
            stream = await self._client.chat.completions.create(
                model=CHAT, messages=_asking(words), stream=True
            )
            events = [event async for event in stream]
            if events[-1].choices[0].finish_reason != "stop":
                raise openai.APIError("the stream has no end", request=None, body=None)  # type: ignore[arg-type]
            return "".join(one.choices[0].delta.content or "" for one in events)

        self._is_ours(words, await self._call("stream", read()))

    async def embed(self) -> None:
        answer = await self._call(
            "embeddings",
            self._client.embeddings.create(model=EMBEDDING, input=[self._words(), "b", "c"]),
        )
        if len(answer.data) != 3:
            self._log.wrong.append("an embedding of other inputs")

    async def file(self) -> None:
        data = self._chance.randbytes(self._chance.randrange(1, 200_000))
        made = await self._call(
            "upload", self._client.files.create(file=("a.bin", data), purpose="user_data")
        )
        self._ledger.files[made.id] = data
        content = await self._call("download", self._client.files.content(made.id))
        if content.content != data:
            self._log.wrong.append(f"{made.id} has other bytes")
        if self._chance.random() < 0.4:
            del self._ledger.files[made.id]  # whatever becomes of the call
            await self._call("delete", self._client.files.delete(made.id))
            self._ledger.deleted.add(made.id)

    async def store(self) -> None:
        made = await self._call("new store", self._client.vector_stores.create(name="soak"))
        self._ledger.stores.add(made.id)
        for _ in range(self._chance.randrange(1, 4)):
            words = self._words()
            data = f"{words} of the {self._ledger.project}.".encode()
            file = await self._call(
                "upload", self._client.files.create(file=("a.txt", data), purpose="assistants")
            )
            self._ledger.files[file.id] = data
            attach = self._client.vector_stores.files.create(made.id, file_id=file.id)
            await self._call("attach", attach)
            self._ledger.attached[made.id, file.id] = words
        found = await self._call(
            "search", self._client.vector_stores.search(made.id, query=self._ledger.project)
        )
        for one in found.data:
            if not one.content[0].text.endswith(f"of the {self._ledger.project}."):
                self._log.wrong.append(f"{made.id} finds {one.content[0].text!r}")

    async def respond(self) -> None:
        words = self._words()
        background = self._chance.random() < 0.6
        began = time.monotonic()
        made = await self._call(
            "response",
            self._client.responses.create(model=CHAT, input=words, background=background),
        )
        self._ledger.responses[made.id] = words
        if background:
            self._ledger.background.add(made.id)
        elif made.status == "failed":
            del self._ledger.responses[made.id]
            failed = Failure("response", began, time.monotonic(), str(made.error))
            self._log.failures.append(failed)
        else:
            self._is_ours(words, made.output_text)

    async def batch(self) -> None:
        lines = [self._words() for _ in range(self._chance.randrange(2, 8))]
        text = "".join(
            json.dumps(
                {
                    "custom_id": words,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"model": CHAT, "messages": _asking(words)},
                }
            )
            + "\n"
            for words in lines
        )
        file = await self._call(
            "upload",
            self._client.files.create(file=("in.jsonl", text.encode()), purpose="batch"),
        )
        self._ledger.files[file.id] = text.encode()
        batch = self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        made = await self._call("batch", batch)
        self._ledger.batches[made.id] = lines
        await asyncio.sleep(self._chance.uniform(2, 4))

    # -- helpers -------------------------------------------------------------------------------

    async def _call(self, what: str, call: Awaitable[ResultT]) -> ResultT:
        """One request. Raises ``LostError``."""
        began = time.monotonic()
        try:
            result = await call
        except openai.APIError as error:
            ended = time.monotonic()
            told = f"{error!r} from {error.__cause__!r}"
            self._log.failures.append(Failure(what, began, ended, told))
            raise LostError from error
        self._log.done[what] += 1
        self._log.seconds[what].append(time.monotonic() - began)
        return result

    def _words(self) -> str:
        """A few words that nobody else says."""
        return f"{self._ledger.project}x{next(self._numbers)}y{self._chance.randrange(10**9)}"

    def _is_ours(self, words: str, text: Any) -> None:
        if words not in str(text):
            self._log.wrong.append(f"asked with {words!r}, told {text!r}")


def _asking(words: str) -> Any:
    return [{"role": "user", "content": words}]
