"""The models that clients can name, and the backends behind each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from gateway.errors import ModelNotFound, WrongKind
from gateway.ports import ModelServer
from gateway.routing.breaker import Breaker
from gateway.routing.load import Load
from gateway.routing.observer import Observer
from gateway.routing.retry_budget import RetryBudget
from gateway.settings import ModelKind, RoutingSettings

__all__ = ["AllowedModels", "Backend", "Catalog", "Model"]

PROVIDER_PREFIX = "vllm/"
"""LlamaStack names models ``provider/model``; a client written for it may do so here as well."""

_DEFAULTS = RoutingSettings()

_PURPOSES = {
    "chat": "chat and text completions",
    "embedding": "embeddings",
    "rerank": "reranking",
    "moderation": "moderation",
}


AllowedModels = frozenset[str] | None
"""The ids of the models that a caller may use; ``None`` is all of them."""


class Backend(Struct, frozen=True, kw_only=True, eq=False):
    """One server that runs a model, and the model's name there.

    ``load`` is shared with the other models of the server; ``seed`` is what affinity knows the
    backend by, the same in every replica of the gateway.
    """

    server: ModelServer
    model: str
    weight: int = 1
    priority: int = 0
    provider_id: str = ""
    load: Load = field(default_factory=Load)
    breaker: Breaker = field(default_factory=lambda: Breaker(_DEFAULTS))
    seed: int = 0


class Model(Struct, kw_only=True, eq=False):
    """A model under the name that clients use.

    ``kind`` is ``None`` until a server has told; ``dimension`` is that of an embedding model's
    vectors, ``context_length`` is in tokens.
    """

    id: str
    backends: Sequence[Backend]
    kind: ModelKind | None = None
    aliases: Sequence[str] = ()
    providers: Sequence[str] = ()
    """The ids of the backends' providers, in their order; ``provider/id`` is a name too."""
    dimension: int | None = None
    context_length: int | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    routing: RoutingSettings = _DEFAULTS
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(_DEFAULTS))
    observer: Observer = field(default_factory=Observer)


class Catalog:
    """Names to models. Replaced as a whole by discovery, so a lookup never sees half a change."""

    def __init__(self, models: Iterable[Model] = ()) -> None:
        self._models: dict[str, Model] = {}
        self._names: dict[str, Model] = {}
        self.complete = True
        """Whether every server whose models are found by asking has answered once."""
        self.replace(models)

    def replace(self, models: Iterable[Model], *, complete: bool = True) -> None:
        """From now on, these. Where a name is given twice, the first one has it."""
        self.complete = complete
        by_id = {model.id: model for model in reversed(list(models))}
        self._models = dict(reversed(by_id.items()))
        aliases = {alias: model for model in by_id.values() for alias in model.aliases}
        prefixed = {
            f"{provider}/{model.id}": model
            for model in by_id.values()
            for provider in model.providers
        }
        self._names = prefixed | aliases | self._models

    def models(self, allowed: AllowedModels = None) -> list[Model]:
        """All of them, or those that a caller may use."""
        if allowed is not None:
            return [model for model in self._models.values() if model.id in allowed]
        return list(self._models.values())

    def get(self, name: str, allowed: AllowedModels = None) -> Model:
        """The model of this id or alias.

        Raises ``ModelNotFound``. One that the caller may not use is as if it weren't there.
        """
        model = self._names.get(name)
        if model is None:
            model = self._names.get(name.removeprefix(PROVIDER_PREFIX))
        if model is None or (allowed is not None and model.id not in allowed):
            raise ModelNotFound(f"The model '{name}' does not exist.", param="model")
        return model

    def find(self, name: str, kinds: Sequence[str], allowed: AllowedModels = None) -> Model:
        """The model, if it is of one of these kinds (any, where none are given).

        Raises ``ModelNotFound``, or ``WrongKind`` that says what the model is for.
        """
        model = self._names.get(name)
        if model is None or allowed is not None:
            model = self.get(name, allowed)
        if kinds and model.kind is not None and model.kind not in kinds:
            raise WrongKind(
                f"The model '{name}' is for {_PURPOSES[model.kind]}, "
                f"not for {_PURPOSES[kinds[0]]}.",
                param="model",
            )
        return model
