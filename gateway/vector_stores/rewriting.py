"""A question in words that a search finds more with, made by a chat model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.chat.service import CHAT
from gateway.errors import GatewayError, InvalidRequest
from gateway.http.validation import NOT_JSON
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient

__all__ = ["QueryRewriter"]

logger = logging.getLogger(__name__)

LIMIT_SECONDS = 10.0
MAX_CHARACTERS = 1000
_PROMPT = (
    "Rewrite the user's question as one short search query for a document search. Keep names, "
    "numbers and codes exactly as they are, and the language. Leave out courtesies. Answer with "
    "the query alone."
)


class _Message(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    message: _Message


class _Completion(Struct, frozen=True):
    choices: list[_Choice]


_completions = msgspec.json.Decoder(_Completion)


class QueryRewriter:
    def __init__(self, client: ModelClient, model: str | None) -> None:
        self._client = client
        self._model = model

    def check(self) -> None:
        """Raises ``InvalidRequest`` where no model is configured for it."""
        if self._model is None:
            raise InvalidRequest(
                "Query rewriting is not available: no chat model is configured for it "
                "(search.rewrite_model).",
                param="rewrite_query",
                code="query_rewriting_not_available",
            )

    async def rewrite(self, activity: Activity, queries: Sequence[str]) -> list[str]:
        """One query in place of these; these themselves where the model fails or is slow.

        A search that finds a little less is worth more than none. The failure is on the call's
        span and counted with its ``error.type``.
        """
        assert self._model is not None  # checked
        request = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": _PROMPT},
                {"role": "user", "content": "\n".join(queries)},
            ],
            "temperature": 0,
            "max_tokens": 200,
        }
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                body = await self._client.ask(CHAT, activity, request)
            query = _query_in(body)
        except (GatewayError, TimeoutError, *NOT_JSON) as error:
            logger.warning("A query was not rewritten: %s", error or "the model was too slow")
            return list(queries)
        return [query] if query else list(queries)


def _query_in(body: bytes) -> str:
    """The answer's text in one line, without a model's thoughts and quotation marks."""
    choices = _completions.decode(body).choices
    text = (choices[0].message.content if choices else None) or ""
    text = " ".join(text.rpartition("</think>")[2].split())
    return text.strip("\"'`")[:MAX_CHARACTERS].strip()
