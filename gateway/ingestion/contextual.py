"""Contextual chunking, LlamaStack's: a chat model says where in the document each chunk belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.chat.service import CHAT
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http.validation import NOT_JSON
from gateway.ingestion.passage import Passage
from gateway.observability.activity import Activity
from gateway.ports import Chunk, ConversionFailed
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog, Model
from gateway.vector_stores.chunking import DEFAULT_CONTEXT_PROMPT

__all__ = ["ContextStrategy", "ContextWriter"]

_CALL_SECONDS = 120.0
_CONCURRENCY = 4
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
_ANSWER_TOKENS = 256
_ASSUMED_TOKENS = 8192
"""Of a model that doesn't say how much it takes."""
_CHARACTERS_A_TOKEN = 3
"""Few, so that what is cut to fit does fit."""


class ContextStrategy(Struct, frozen=True, kw_only=True):
    """``chunking_strategy.contextual``. Times are in seconds, for each call."""

    model_id: str | None = None
    context_prompt: str = DEFAULT_CONTEXT_PROMPT
    max_chunk_size_tokens: int = 700
    chunk_overlap_tokens: int = 400
    timeout_seconds: float | None = None
    max_concurrency: int | None = None


class _Said(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    message: _Said


class _Completion(Struct, frozen=True):
    choices: list[_Choice]


_answers = msgspec.json.Decoder(_Completion)


class ContextWriter:
    """Asks for the context of chunks, one call for each, a bounded number at once.

    The document comes first in the prompt, so that the model server's prefix cache holds it for
    all chunks. A document that is longer than the model takes is cut to the part around the chunk.
    """

    def __init__(
        self,
        catalog: Catalog,
        client: ModelClient,
        strategy: ContextStrategy,
        document: Sequence[Chunk],
    ) -> None:
        """``document`` is all of it, in chunks that don't overlap."""
        self._client = client
        self._strategy = strategy
        self._text = "\n\n".join(chunk.text for chunk in document)
        self._model = _chat_model(catalog, strategy.model_id)
        self._turns = asyncio.Semaphore(strategy.max_concurrency or _CONCURRENCY)
        self._seconds = strategy.timeout_seconds or _CALL_SECONDS
        tokens = (self._model.context_length or _ASSUMED_TOKENS) - _ANSWER_TOKENS
        self._room = max(tokens, _ANSWER_TOKENS) * _CHARACTERS_A_TOKEN

    async def write(self, activity: Activity, passages: Sequence[Passage]) -> list[Passage]:
        """These with their contexts. Raises ``GatewayError``; a call that fails is made up to
        three times where another one may do better.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(activity, one.chunk)) for one in passages]
        except* GatewayError as failed:
            raise failed.exceptions[0] from None
        return [
            msgspec.structs.replace(one, context=task.result() or None)
            for one, task in zip(passages, tasks, strict=True)
        ]

    async def _ask(self, activity: Activity, chunk: Chunk) -> str:
        async with self._turns:
            attempt = 1
            while True:
                try:
                    async with asyncio.timeout(self._seconds):
                        body = await self._client.ask(CHAT, activity, self._request(chunk))
                    return _context(body)
                except TimeoutError:
                    error: GatewayError = UpstreamTimeout(
                        f"The chat model '{self._model.id}' took longer than "
                        f"{self._seconds:g} s for the context of a chunk."
                    )
                except (UpstreamError, RateLimited) as raised:
                    error = raised
                if attempt == _ATTEMPTS:
                    raise error
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
                attempt += 1

    def _request(self, chunk: Chunk) -> dict[str, Any]:
        prompt = self._strategy.context_prompt
        room = max(self._room - len(prompt) - len(chunk.text), 0)
        # The chunk goes in last: the document may hold the words of a placeholder.
        before, _, after = prompt.partition("{{CHUNK_CONTENT}}")
        before = before.replace("{{WHOLE_DOCUMENT}}", self._around(chunk, room))
        return {
            "model": self._model.id,
            "messages": [{"role": "user", "content": before + chunk.text + after}],
            "temperature": 0,
            "max_completion_tokens": _ANSWER_TOKENS,
        }

    def _around(self, chunk: Chunk, room: int) -> str:
        """As much of the document as there is room for, in characters."""
        if len(self._text) <= room:
            return self._text
        place = max(self._text.find(chunk.text[:80]), 0) + len(chunk.text) // 2
        start = min(max(place - room // 2, 0), len(self._text) - room)
        return self._text[start : start + room]


def _chat_model(catalog: Catalog, name: str | None) -> Model:
    """Raises ``ConversionFailed`` where it isn't clear which one is meant."""
    if name is not None:
        try:
            return catalog.find(name, CHAT.kinds)
        except ModelNotFound as error:
            # It may be on its way: a server that is restarting is not known for a while.
            raise ConversionFailed("server_error", error.message, transient=True) from None
        except InvalidRequest as error:
            raise ConversionFailed("server_error", error.message) from None
    known = [model for model in catalog.models() if model.kind == "chat"]
    if len(known) != 1:
        raise ConversionFailed(
            "server_error",
            "Contextual chunking needs a chat model: set chunking_strategy.contextual.model_id.",
        )
    return known[0]


def _context(body: bytes) -> str:
    try:
        said = _answers.decode(body).choices[0].message.content
    except (*NOT_JSON, IndexError) as error:
        raise UpstreamError(f"The model server's answer is no chat completion: {error}") from None
    return (said or "").strip()
