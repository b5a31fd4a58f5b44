"""What a chat completion is to the relay and to a trace."""

from __future__ import annotations

from typing import Any

from gateway.chat.schemas import ChatCompletionRequest, GenerationRequest
from gateway.chat.transcript import ChatTranscript
from gateway.observability import semconv
from gateway.relay.operation import Operation

_ATTRIBUTES = (
    ("temperature", semconv.REQUEST_TEMPERATURE),
    ("top_p", semconv.REQUEST_TOP_P),
    ("top_k", semconv.REQUEST_TOP_K),
    ("seed", semconv.REQUEST_SEED),
    ("frequency_penalty", semconv.REQUEST_FREQUENCY_PENALTY),
    ("presence_penalty", semconv.REQUEST_PRESENCE_PENALTY),
    ("max_tokens", semconv.REQUEST_MAX_TOKENS),
)
_INT64 = 2**63
"""OTLP has no larger integers; what is beyond is for the model server to refuse."""

_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}


def generation_attributes(request: GenerationRequest) -> dict[str, Any]:
    """The span attributes of a request that samples tokens."""
    attributes: dict[str, Any] = {
        name: value
        for field, name in _ATTRIBUTES
        if (value := getattr(request, field)) is not None and -_INT64 <= value < _INT64
    }
    if request.n is not None and request.n != 1 and abs(request.n) < _INT64:
        attributes[semconv.REQUEST_CHOICE_COUNT] = request.n
    if request.stop is not None:
        stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
        attributes[semconv.REQUEST_STOP_SEQUENCES] = stop
    return attributes


def chat_attributes(request: ChatCompletionRequest) -> dict[str, Any]:
    attributes = generation_attributes(request)
    if request.max_completion_tokens is not None:
        attributes[semconv.REQUEST_MAX_TOKENS] = request.max_completion_tokens
    if request.response_format is not None:
        output = _OUTPUT_TYPES.get(request.response_format.type)
        if output is not None:
            attributes[semconv.OUTPUT_TYPE] = output
    return attributes


CHAT = Operation(
    name="chat",
    path="/v1/chat/completions",
    request=ChatCompletionRequest,
    kinds=("chat", "moderation"),
    attributes=chat_attributes,
    api_type="chat_completions",
    asks_usage=True,
    conforms=True,
    tee=ChatTranscript,
)
