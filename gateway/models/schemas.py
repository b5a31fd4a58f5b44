"""A model as clients of OpenAI, of LlamaStack and of OGX expect it, all in one object."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ModelObject(Struct, frozen=True, kw_only=True):
    """OpenAI reads the first four fields, OGX ``custom_metadata``, LlamaStack to 0.3 the rest."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    custom_metadata: dict[str, Any]
    identifier: str
    provider_id: str
    provider_resource_id: str
    type: Literal["model"] = "model"
    metadata: dict[str, Any]
    model_type: str


class ModelList(Struct, frozen=True):
    data: list[ModelObject]
    object: Literal["list"] = "list"


class AnthropicModel(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: str


class AnthropicModelList(Struct, frozen=True, kw_only=True):
    """What a request with an ``anthropic-version`` header gets."""

    data: list[AnthropicModel]
    has_more: bool = False
    first_id: str | None
    last_id: str | None
