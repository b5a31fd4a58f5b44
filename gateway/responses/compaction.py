"""Counting the tokens of a context, and summing it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.chat.service import CHAT
from gateway.database.identifiers import new_id, now
from gateway.errors import InvalidRequest, UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.identity.principal import Principal
from gateway.items.parsing import item_id
from gateway.observability.activity import Activity
from gateway.observability.call import Usage
from gateway.relay.client import ModelClient
from gateway.responses.assignment import Assignment
from gateway.responses.context import known_tools
from gateway.responses.inputs import InputReader
from gateway.responses.messages import chat_messages, led
from gateway.responses.performance import Performer
from gateway.responses.preparation import Preparation
from gateway.responses.run import Run
from gateway.responses.schemas import CompactedResponse, CompactRequest, InputTokens
from gateway.responses.sealed import seal
from gateway.responses.toolbox import Toolbox
from gateway.tokenize.service import TOKENIZE

__all__ = ["CompactionService"]

INSTRUCTION = (
    "Sum up the conversation above for the one who will continue it. Keep what the user wants, "
    "what was found out and decided, names, numbers, file names and open questions. Write only "
    "the summary."
)


class _Message(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    message: _Message = _Message()


class _Completion(Struct, frozen=True):
    choices: list[_Choice] = []
    usage: Usage | None = None


class _Counted(Struct, frozen=True):
    count: int


class CompactionService:
    def __init__(
        self,
        client: ModelClient,
        preparation: Preparation,
        performer: Performer,
        *,
        max_summary_tokens: int,
    ) -> None:
        self._client = client
        self._preparation = preparation
        self._performer = performer
        self._max_summary_tokens = max_summary_tokens

    async def input_tokens(
        self, principal: Principal, activity: Activity, body: Mapping[str, Any]
    ) -> InputTokens:
        """How many tokens the model would read. The tools of MCP servers count only where the
        context has them already.
        """
        assignment = await self._preparation.prepare(principal, body)
        messages = await self._messages(assignment, activity)
        request = assignment.run.request
        toolbox = Toolbox(
            request.tools or (), known_tools(assignment.context.items), approval_is_usual=True
        )
        asked: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "add_generation_prompt": True,
        }
        functions, _ = assignment.choice.functions(toolbox, first=True)
        if functions:
            asked["tools"] = functions
        answer = await self._client.ask(TOKENIZE, activity, asked)
        try:
            return InputTokens(input_tokens=msgspec.json.decode(answer, type=_Counted).count)
        except NOT_JSON as error:
            raise UpstreamError(f"The model server's answer is no count: {error}") from None

    async def compact(
        self, principal: Principal, activity: Activity, request: CompactRequest
    ) -> CompactedResponse:
        """The user's messages as they are, and a summary of all the rest as one item."""
        body = {k: v for k, v in msgspec.to_builtins(request).items() if v is not None}
        assignment = await self._preparation.prepare(principal, body)
        messages = await self._messages(assignment, activity)
        asked = {
            "model": request.model,
            "messages": [*messages, {"role": "user", "content": INSTRUCTION}],
            "max_completion_tokens": self._max_summary_tokens,
        }
        try:
            answer = await self._client.ask(CHAT, activity, asked)
        except InvalidRequest as error:
            if error.code == "context_length_exceeded":
                error.param = "input"
            raise
        try:
            completion = msgspec.json.decode(answer, type=_Completion)
        except NOT_JSON as error:
            raise UpstreamError(f"The model server's answer is no completion: {error}") from None
        text = (completion.choices[0].message.content if completion.choices else None) or ""
        summary = text.rpartition("</think>")[2].strip()
        if not summary:
            raise UpstreamError("The model has summed up nothing.", code="bad_upstream_answer")
        counted = Run("", assignment.run.request)
        counted.count(completion.usage)
        kept = [
            item
            for item in assignment.context.items
            if item["type"] == "message" and item["role"] == "user"
        ]
        compaction = {
            "id": item_id("compaction"),
            "type": "compaction",
            "encrypted_content": seal(summary),
        }
        return CompactedResponse(
            id=new_id("resp_"),
            created_at=now(),
            output=[*kept, compaction],
            usage=counted.usage(),
        )

    async def _messages(self, assignment: Assignment, activity: Activity) -> list[dict[str, Any]]:
        reader: InputReader = self._performer.reader(assignment.principal)
        await reader.read(activity, assignment.items)
        items = [item for _, item in assignment.items]
        messages = chat_messages(items, reader.content, lambda _, name: name, room=60_000)
        return led(messages, assignment.system)
