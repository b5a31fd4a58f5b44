"""Guards: whatever can judge a conversation, and how one is found by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from gateway.errors import InvalidRequest, ModelNotFound, WrongKind
from gateway.moderations.conversation import Conversation
from gateway.moderations.detector_guard import DetectorGuard
from gateway.moderations.judgement import Judgement
from gateway.moderations.model_guard import ModelGuard
from gateway.observability.activity import Activity
from gateway.ports import ContentDetector
from gateway.relay.client import ModelClient
from gateway.routing.catalog import AllowedModels, Catalog, Model
from gateway.routing.guard_names import guard_form, judges_images
from gateway.settings import GuardModelSettings, ModerationCategory, ModerationSettings

__all__ = ["Guard", "Guards", "check_images"]


class Guard(Protocol):
    """A guard model or a detector."""

    name: str
    provider_id: str
    """What LlamaStack calls its kind, as a provider of shields."""
    takes_images: bool
    categories: Mapping[str, Sequence[ModerationCategory]]
    """OpenAI's for the guard's own, beside the usual ones."""

    async def judge(
        self, activity: Activity, conversations: Sequence[Conversation]
    ) -> list[Judgement]:
        """A judgement of the last turn of each, in their order.

        Raises ``UpstreamError`` where there is no clear verdict: nothing passes unjudged.
        """


class Guards:
    """The detectors and models of the settings, and the guard models that the catalog knows."""

    def __init__(
        self,
        catalog: Catalog,
        client: ModelClient,
        settings: ModerationSettings,
        detectors: Mapping[str, ContentDetector],
    ) -> None:
        self._catalog = catalog
        self._client = client
        self._default = settings.default_model
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._models = settings.models
        self._detectors = {
            one.name: DetectorGuard(detectors[one.name], one, self._turns)
            for one in settings.detectors
        }

    def all(self, allowed: AllowedModels = None) -> list[Guard]:
        """Those that there are now: a configured model that no server has is not among them.

        Detectors are everybody's; models are those that the caller may use.
        """
        configured = self._configured()
        models = [
            self._guard(model, configured.get(model.id))
            for model in self._catalog.models(allowed)
            if model.kind == "moderation" or model.id in configured
        ]
        return [*self._detectors.values(), *models]

    def find(self, name: str, allowed: AllowedModels = None) -> Guard:
        """By a detector's name, a model's id or an alias.

        Raises ``ModelNotFound``, and ``WrongKind`` for a model that is no guard.
        """
        if name in self._detectors:
            return self._detectors[name]
        model = self._catalog.get(name, allowed)
        settings = self._configured().get(model.id)
        if settings is None and model.kind != "moderation":
            raise WrongKind(
                f"The model '{name}' is no guard. If it is to judge content, name it in "
                "moderation.models.",
                param="model",
            )
        return self._guard(model, settings)

    def knows(self, name: str, allowed: AllowedModels = None) -> bool:
        """Whether there is a guard or a model of this name."""
        if name in self._detectors:
            return True
        try:
            self._catalog.get(name, allowed)
        except ModelNotFound:
            return False
        return True

    def default(self, allowed: AllowedModels = None) -> Guard:
        """The configured one, which is everybody's, or the only one.

        Raises ``InvalidRequest`` where there is none.
        """
        if self._default is not None:
            return self.find(self._default)
        known = self.all(allowed)
        if len(known) == 1:
            return known[0]
        if known:
            raise InvalidRequest(
                "Missing required parameter: 'model'. The gateway knows several guards and "
                "moderation.default_model is not configured.",
                param="model",
                code="missing_required_parameter",
            )
        raise InvalidRequest(
            "Moderation is not available: no guard model is served, and neither "
            "moderation.models nor moderation.detectors is configured.",
            param="model",
            code="moderation_not_available",
        )

    def _configured(self) -> dict[str, GuardModelSettings]:
        """By the ids of their models; those that the catalog doesn't know are left out."""
        found: dict[str, GuardModelSettings] = {}
        for settings in self._models:
            try:
                found[self._catalog.get(settings.model).id] = settings
            except ModelNotFound:
                continue
        return found

    def _guard(self, model: Model, settings: GuardModelSettings | None) -> ModelGuard:
        """With what its names tell where the settings don't."""
        settings = settings or GuardModelSettings(model=model.id)
        names = [model.id, *(backend.model for backend in model.backends)]
        forms = [form for name in names if (form := guard_form(name)) is not None]
        images = settings.images
        if images is None:
            images = any(judges_images(name) for name in names)
        complete = replace(
            settings,
            model=model.id,
            format=settings.format or (forms[0] if forms else "prompt"),
            images=images,
        )
        return ModelGuard(self._client, complete, self._turns)


def check_images(guard: Guard, conversation: Conversation, param: str) -> None:
    """Raises ``InvalidRequest`` where the guard would be shown an image that it can't see."""
    if conversation[-1].images and not guard.takes_images:
        raise InvalidRequest(
            f"The guard '{guard.name}' judges text only, not images.",
            param=param,
            code="images_not_supported",
        )
