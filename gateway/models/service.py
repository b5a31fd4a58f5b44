"""Models as objects of the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.identity.principal import Principal
from gateway.models.schemas import AnthropicModel, AnthropicModelList, ModelList, ModelObject
from gateway.profile import Profile
from gateway.routing.catalog import Catalog, Model

_MODEL_TYPES = {"chat": "llm", "embedding": "embedding", "rerank": "rerank", "moderation": "llm"}
"""Our kinds in LlamaStack's words."""


class ModelService:
    """Answers from the catalog; asks no server. Shows a caller the models that it may use."""

    def __init__(self, catalog: Catalog, profile: Profile) -> None:
        self._catalog = catalog
        self._profile = profile

    def list(self, principal: Principal) -> ModelList:
        models = self._catalog.models(principal.models)
        return ModelList(data=[self._object(model) for model in models])

    def get(self, principal: Principal, name: str) -> ModelObject:
        """By id or alias. Raises ``ModelNotFound``."""
        return self._object(self._catalog.get(name, principal.models))

    def list_for_anthropic(self, principal: Principal) -> AnthropicModelList:
        models = [
            AnthropicModel(
                id=self._name(model),
                display_name=model.id,
                created_at=datetime.fromtimestamp(model.created, UTC).isoformat(),
            )
            for model in self._catalog.models(principal.models)
        ]
        return AnthropicModelList(
            data=models,
            first_id=models[0].id if models else None,
            last_id=models[-1].id if models else None,
        )

    def _name(self, model: Model) -> str:
        prefixed = self._profile.prefixed_model_ids
        return f"{model.providers[0]}/{model.id}" if prefixed else model.id

    def _object(self, model: Model) -> ModelObject:
        backend = model.backends[0]
        provider_id, name = model.providers[0], self._name(model)
        metadata: dict[str, Any] = {}
        if model.dimension is not None:
            metadata["embedding_dimension"] = model.dimension
        if model.context_length is not None:
            metadata["context_length"] = model.context_length
        if model.aliases:
            metadata["aliases"] = list(model.aliases)
        model_type = _MODEL_TYPES[model.kind or "chat"]
        return ModelObject(
            id=name,
            created=model.created,
            owned_by=self._profile.owned_by or backend.server.provider,
            custom_metadata={
                "model_type": model_type,
                "provider_id": provider_id,
                "provider_resource_id": backend.model,
                **metadata,
            },
            identifier=name,
            provider_id=provider_id,
            provider_resource_id=backend.model,
            metadata=metadata,
            model_type=model_type,
        )
