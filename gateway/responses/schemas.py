"""Requests for responses, and what is answered beside the response itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.responses.tool_definitions import Tool

__all__ = [
    "CompactRequest",
    "CompactedResponse",
    "CreateResponse",
    "DeletedResponse",
    "InputItems",
    "InputTokens",
    "InputTokensRequest",
    "JsonSchemaFormat",
    "PromptReference",
    "Reasoning",
    "TextConfig",
]

Positive = Annotated[int, Meta(ge=1)]
Identifier = Annotated[str, Meta(min_length=1, max_length=256)]
ObjectId = Annotated[str, Meta(min_length=1, max_length=120)]


class TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Plain text, the default."""


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Some JSON object."""


class JsonSchemaFormat(Struct, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    """JSON of this schema."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$(?!\n)")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, frozen=True, kw_only=True):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Struct, frozen=True, kw_only=True):
    """``effort`` goes to the model server as ``reasoning_effort``."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class PromptReference(Struct, frozen=True, kw_only=True):
    """A stored prompt, and what its variables are to be."""

    id: ObjectId
    version: str | int | None = None
    variables: dict[str, Any] | None = None


class ConversationReference(Struct, frozen=True, kw_only=True):
    id: ObjectId


class GuardrailReference(Struct, frozen=True, kw_only=True):
    """LlamaStack's ``{"type": "shield-id"}``."""

    type: Identifier


class StreamOptions(Struct, frozen=True, kw_only=True):
    include_obfuscation: bool | None = None


class InputTokensRequest(Struct, frozen=True, kw_only=True):
    """What counts for the number of input tokens, and what every request for a model has."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Any] | None = None
    instructions: str | None = None
    previous_response_id: ObjectId | None = None
    conversation: ObjectId | ConversationReference | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None


class CreateResponse(InputTokensRequest, frozen=True, kw_only=True):
    """``max_infer_iters`` and ``guardrails`` are LlamaStack's.

    Fields that are not here go to the model server with every turn, as they are.
    """

    background: bool | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    guardrails: list[Identifier | GuardrailReference] | None = None
    include: list[str] | None = None
    max_infer_iters: Positive | None = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    metadata: dict[str, Any] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    prompt: PromptReference | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    user: str | None = None

    @property
    def stored(self) -> bool:
        return self.store is not False

    @property
    def conversation_id(self) -> str | None:
        given = self.conversation
        return given.id if isinstance(given, ConversationReference) else given

    @property
    def shields(self) -> list[str]:
        """The ids of the guardrails."""
        return [
            one.type if isinstance(one, GuardrailReference) else one
            for one in self.guardrails or ()
        ]


class CompactRequest(Struct, frozen=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Any] | None = None
    instructions: str | None = None
    previous_response_id: ObjectId | None = None


class CompactedResponse(Struct, frozen=True, kw_only=True):
    """The user's messages, and an item in which the rest is summed up."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[dict[str, Any]]
    usage: dict[str, Any]


class InputTokens(Struct, frozen=True, kw_only=True):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class DeletedResponse(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItems(Struct, frozen=True, kw_only=True):
    """A page of items."""

    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


_NOT_FORWARDED = frozenset(
    {
        *msgspec.structs.asdict(CreateResponse(model="-")),
        "access_programs",
        "background_options",
        "context_management",
        "image",
        "memory",
        "moderation",
        "prompt_cache_options",
        "prompt_cache_retention",
        "skills",
        "messages",
        "n",
    }
)
"""What is read here, and what OpenAI or LlamaStack mean for their own servers."""


def forwarded(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request that go to the model server as they are."""
    return {name: value for name, value in body.items() if name not in _NOT_FORWARDED}
