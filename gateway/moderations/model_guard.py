"""A model of the catalog as a guard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from gateway.chat.service import CHAT
from gateway.errors import InvalidRequest
from gateway.moderations.answers import read_guard_answer
from gateway.moderations.conversation import Conversation
from gateway.moderations.forms import Question, form_of
from gateway.moderations.gathering import all_of
from gateway.moderations.judgement import Judgement, merged
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient
from gateway.settings import GuardModelSettings, ModerationCategory

__all__ = ["ModelGuard"]

_TOP_LOGPROBS = 20
"""The most that vLLM gives unless it is told otherwise."""


class ModelGuard:
    """``settings`` are complete: format and images are known. ``turns`` bounds the calls."""

    def __init__(
        self, client: ModelClient, settings: GuardModelSettings, turns: asyncio.Semaphore
    ) -> None:
        self.name = settings.model
        self.takes_images = bool(settings.images)
        self.categories: Mapping[str, Sequence[ModerationCategory]] = {}
        self._client = client
        self._settings = settings
        self._turns = turns
        self._form = form_of(settings)
        self.provider_id = self._form.provider_id

    async def judge(
        self, activity: Activity, conversations: Sequence[Conversation]
    ) -> list[Judgement]:
        return await all_of(partial(self._judge, activity), conversations)

    async def _judge(self, activity: Activity, conversation: Conversation) -> Judgement:
        if not self.takes_images:
            *before, last = conversation
            conversation = [*(replace(turn, images=()) for turn in before), last]
        questions = self._form.questions(conversation)
        judgements = await all_of(partial(self._ask, activity), questions)
        return merged(judgements).without(self._settings.excluded_categories)

    async def _ask(self, activity: Activity, question: Question) -> Judgement:
        request: dict[str, Any] = {"model": self.name, "temperature": 0, **question.request}
        if self._settings.logprobs:
            request |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        async with self._turns:
            try:
                body = await self._client.ask(CHAT, activity, request)
            except InvalidRequest as error:  # too long, most likely, or not an image
                raise type(error)(
                    f"The guard '{self.name}' can't judge this: {error.message}",
                    param="input",
                    code=error.code,
                ) from None
        return question.read(read_guard_answer(body))
