"""What the answers look like that the gateway passes on, or keeps as it got them.

Nothing is decoded into these: they are for the document. A model server may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.http.pages import Page
from gateway.rerank.schemas import InferenceRerankResponse
from gateway.vector_stores.search_schemas import FileContent

__all__ = ["ANSWERED"]

Object = dict[str, Any]
Finish = str | None


class Usage(Struct, kw_only=True):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET
    prompt_tokens_details: Object | UnsetType | None = UNSET
    completion_tokens_details: Object | UnsetType | None = UNSET


class FunctionOfCall(Struct, kw_only=True):
    name: str
    arguments: str


class ToolCallMade(Struct, kw_only=True):
    id: str
    type: Literal["function"]
    function: FunctionOfCall


class AssistantMessage(Struct, kw_only=True):
    """``reasoning`` is vLLM's."""

    role: str
    content: str | None
    refusal: str | UnsetType | None = UNSET
    annotations: list[Object] | UnsetType | None = UNSET
    audio: Object | UnsetType | None = UNSET
    function_call: Object | UnsetType | None = UNSET
    tool_calls: list[ToolCallMade] | UnsetType | None = UNSET
    reasoning: str | UnsetType | None = UNSET


class ChatChoice(Struct, kw_only=True):
    index: int
    message: AssistantMessage
    finish_reason: Finish
    logprobs: Object | UnsetType | None = UNSET


class ChatCompletion(Struct, kw_only=True):
    """``metadata`` and ``store`` are there where it was stored."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType | None = UNSET
    metadata: Object | UnsetType | None = UNSET


class TextChoice(Struct, kw_only=True):
    index: int
    text: str
    finish_reason: Finish
    logprobs: Object | UnsetType | None = UNSET


class TextCompletion(Struct, kw_only=True):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType | None = UNSET


class Embedded(Struct, kw_only=True):
    """Numbers, or text where ``encoding_format`` is ``base64``."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingList(Struct, kw_only=True):
    object: Literal["list"]
    data: list[Embedded]
    model: str
    usage: Usage


class AnthropicUsage(Struct, kw_only=True):
    input_tokens: int
    output_tokens: int


class AnthropicMessage(Struct, kw_only=True):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[Object]
    model: str
    stop_reason: str | None
    usage: AnthropicUsage
    stop_sequence: str | UnsetType | None = UNSET


class TokenCount(Struct, kw_only=True):
    input_tokens: int


class Tokenized(Struct, kw_only=True):
    count: int
    max_model_len: int
    tokens: list[int]


class Detokenized(Struct, kw_only=True):
    prompt: str


class Ranked(Struct, kw_only=True):
    index: int
    relevance_score: float


class Ranking(Struct, kw_only=True):
    results: list[Ranked]


class Item(Struct, kw_only=True):
    """The rest depends on the type."""

    id: str
    type: str


class StoredMessage(Struct, kw_only=True):
    """What was said; of the caller's own, content may be a list of parts."""

    id: str
    role: str
    content: str | list[Object] | None
    name: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    annotations: list[Object] | UnsetType | None = UNSET
    audio: Object | UnsetType | None = UNSET
    function_call: Object | UnsetType | None = UNSET
    tool_calls: list[ToolCallMade] | UnsetType | None = UNSET
    reasoning: str | UnsetType | None = UNSET


class ResponseUsage(Struct, kw_only=True):
    input_tokens: int
    input_tokens_details: Object
    output_tokens: int
    output_tokens_details: Object
    total_tokens: int


class ConversationOf(Struct, kw_only=True):
    id: str


class ResponseFailure(Struct, kw_only=True):
    code: str
    message: str


class Incomplete(Struct, kw_only=True):
    reason: str


class ReasoningOf(Struct, kw_only=True):
    effort: str | None
    summary: str | None


class TextOf(Struct, kw_only=True):
    format: Object
    verbosity: str


class ResponseObject(Struct, kw_only=True):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    conversation: ConversationOf | None
    error: ResponseFailure | None
    frequency_penalty: float
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[Item]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt: Object | None
    prompt_cache_key: str | None
    reasoning: ReasoningOf
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextOf
    tool_choice: str | Object
    tools: list[Object]
    top_logprobs: Annotated[int, Meta(ge=0)]
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None


class InputItemList(Struct, kw_only=True):
    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseList(Struct, kw_only=True):
    object: Literal["list"]
    data: list[ResponseObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileContentPage(Struct, kw_only=True):
    object: Literal["vector_store.file_content.page"]
    data: list[FileContent]
    has_more: bool
    next_page: str | None


ANSWERED: dict[str, Any] = {
    "createChatCompletion": ChatCompletion,
    "getChatCompletion": ChatCompletion,
    "updateChatCompletion": ChatCompletion,
    "listChatCompletions": Page[ChatCompletion],
    "getChatCompletionMessages": Page[StoredMessage],
    "createCompletion": TextCompletion,
    "createEmbedding": EmbeddingList,
    "createMessage": AnthropicMessage,
    "countMessageTokens": TokenCount,
    "tokenize": Tokenized,
    "detokenize": Detokenized,
    "rerank": Ranking,
    "inferenceRerank": InferenceRerankResponse,
    "createResponse": ResponseObject,
    "getResponse": ResponseObject,
    "cancelResponse": ResponseObject,
    "listResponses": ResponseList,
    "listInputItems": InputItemList,
    "retrieveVectorStoreFileContent": FileContentPage,
    "createConversationItems": Page[Item],
    "listConversationItems": Page[Item],
    "getConversationItem": Item,
}
"""By the name of the operation."""
