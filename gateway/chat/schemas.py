"""The chat completion request, as far as the gateway reads it.

Whatever isn't here (``structured_outputs``, ``chat_template_kwargs`` …) goes to the model server as
it came, and so does what is here.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class ResponseFormat(Struct, frozen=True):
    type: str


class Message(Struct, frozen=True):
    role: str


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """What chat and text completions have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    user: str | None = None


class ChatCompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Raw]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None


class ContentMessage(Struct, frozen=True):
    """A message with what was said; read only where content is captured or stored.

    Nothing in it is checked: that is for the model server to do.
    """

    role: str = "assistant"
    content: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
