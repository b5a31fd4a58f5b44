"""Moderations: each input is judged by a guard, and told in OpenAI's categories."""

from __future__ import annotations

from typing import Literal

from gateway.database.identifiers import new_id
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.moderations.categories import CATEGORIES, JUDGED_IN_IMAGES, openai_categories
from gateway.moderations.conversation import Turn, conversation_of, text_turn
from gateway.moderations.guards import Guard, Guards, check_images
from gateway.moderations.judgement import SAFE, Judgement
from gateway.moderations.schemas import (
    CreateModeration,
    InputPart,
    ModerationObject,
    ModerationResult,
)
from gateway.observability.activity import Activity
from gateway.routing.catalog import AllowedModels
from gateway.settings import ModerationCategory

__all__ = ["USER_MESSAGE", "ModerationService"]

USER_MESSAGE = "I can't answer that. Can I help with something else?"
"""LlamaStack's."""

_OPENAI_MODELS = ("omni-moderation-", "text-moderation-")
"""A client that moves here from OpenAI names one of these, and means the guard that there is."""


class ModerationService:
    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    async def create(
        self,
        principal: Principal,
        activity: Activity,
        request: CreateModeration,
    ) -> ModerationObject:
        """A result for each input. Raises ``InvalidRequest``, ``ModelNotFound``, ``WrongKind``,
        and ``UpstreamError`` where the guard gives no verdict.
        """
        guard, name = self._guard(request.model, principal.models)
        inputs = _inputs(request)
        for one in inputs:
            if one is not None:
                check_images(guard, [one], "input")
        judged = await guard.judge(activity, [[one] for one in inputs if one is not None])
        verdicts = iter(judged)
        return ModerationObject(
            id=new_id("modr-"),
            model=name,
            results=[
                _result(guard, one, SAFE if one is None else next(verdicts)) for one in inputs
            ],
        )

    def _guard(self, name: str | None, allowed: AllowedModels) -> tuple[Guard, str]:
        """The guard, and what the answer calls it: as the caller did, unless it left the choice."""
        if name is None:
            guard = self._guards.default(allowed)
            return guard, guard.name
        if name.startswith(_OPENAI_MODELS) and not self._guards.knows(name, allowed):
            guard = self._guards.default(allowed)
            return guard, guard.name
        return self._guards.find(name, allowed), name


def _inputs(request: CreateModeration) -> list[Turn | None]:
    """What is to be judged; ``None`` where an input is empty. Parts are one input together."""
    if isinstance(request.input, str):
        return _texts([request.input])
    texts = [one for one in request.input if isinstance(one, str)]
    if len(texts) == len(request.input):
        return _texts(texts)
    if texts:
        raise InvalidRequest(
            "Invalid value for 'input': strings and parts can't be mixed.",
            param="input",
            code="invalid_value",
        )
    parts = [_part(one, f"input[{at}]") for at, one in enumerate(request.input)]
    conversation = conversation_of([{"role": "user", "content": parts}], "input")
    return [None if conversation is None else conversation[-1]]


def _texts(texts: list[str]) -> list[Turn | None]:
    return [text_turn(text) if text.strip() else None for text in texts]


def _part(part: str | InputPart, where: str) -> dict[str, object]:
    assert not isinstance(part, str)  # they aren't mixed
    if part.type == "text" and part.text is not None:
        return {"type": "text", "text": part.text}
    if part.type == "image_url" and part.image_url is not None:
        url = part.image_url.url
        if not url.startswith(("https://", "http://", "data:image/")):
            raise InvalidRequest(
                f"Invalid value for '{where}.image_url.url': expected an http(s) URL or a data "
                "URL of an image.",
                param=f"{where}.image_url.url",
                code="invalid_value",
            )
        return {"type": "image_url", "image_url": {"url": url}}
    raise InvalidRequest(
        f"Missing required parameter: '{where}.{part.type}'.",
        param=f"{where}.{part.type}",
        code="missing_required_parameter",
    )


def _result(guard: Guard, judged: Turn | None, judgement: Judgement) -> ModerationResult:
    violated: set[ModerationCategory] = set()
    for name in judgement.violated:
        violated.update(openai_categories(name, guard.categories))
    scores = dict.fromkeys(CATEGORIES, 0.0)
    for name, score in judgement.scores.items():
        for category in openai_categories(name, guard.categories):
            scores[category] = max(scores[category], score)
    types = {category: _types(judged, category) for category in CATEGORIES}
    return ModerationResult(
        flagged=judgement.flagged,
        categories={category: category in violated for category in CATEGORIES},
        category_scores=scores,
        category_applied_input_types=types,
        user_message=USER_MESSAGE if judgement.flagged else None,
        metadata={"violation_type": list(judgement.violated)} if judgement.flagged else {},
    )


def _types(judged: Turn | None, category: ModerationCategory) -> list[Literal["text", "image"]]:
    """Which kinds of the input the score is of."""
    types: list[Literal["text", "image"]] = []
    if judged is None or judged.text or not judged.images:
        types.append("text")
    if judged is not None and judged.images and category in JUDGED_IN_IMAGES:
        types.append("image")
    return types
