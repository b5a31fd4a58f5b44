"""The chat completion that a turn asks for."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import GatewayError
from gateway.responses.assignment import Assignment
from gateway.responses.schemas import JsonObjectFormat, JsonSchemaFormat, TextConfig
from gateway.responses.toolbox import Toolbox

__all__ = ["chat_request", "in_words_of_responses", "shorten"]

LOGPROBS = "message.output_text.logprobs"
_AS_THEY_ARE = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "user",
    "prompt_cache_key",
)
_PARAMS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}


def chat_request(
    assignment: Assignment,
    messages: list[dict[str, Any]],
    toolbox: Toolbox,
    *,
    first: bool,
    tools_are_left: bool,
    tokens_left: int | None,
) -> dict[str, Any]:
    """``tokens_left`` is what of ``max_output_tokens`` earlier turns have left over."""
    request = assignment.run.request
    body: dict[str, Any] = {**assignment.extra, "model": request.model, "messages": messages}
    for name in _AS_THEY_ARE:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if tokens_left is not None:
        body["max_completion_tokens"] = tokens_left
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if (form := _response_format(request.text)) is not None:
        body["response_format"] = form
    if request.top_logprobs or LOGPROBS in assignment.run.include:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    if toolbox:
        functions, choice = assignment.choice.functions(toolbox, first=first)
        if functions:
            body["tools"] = functions
            body["tool_choice"] = choice if tools_are_left else "none"
            if request.parallel_tool_calls is False:
                body["parallel_tool_calls"] = False
    return body


def _response_format(text: TextConfig | None) -> dict[str, Any] | None:
    match text.format if text is not None else None:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat() as given:
            schema = msgspec.to_builtins(given)
            schema.pop("type")
            return {
                "type": "json_schema",
                "json_schema": {k: v for k, v in schema.items() if v is not None},
            }
    return None


def in_words_of_responses(error: GatewayError) -> GatewayError:
    """The model server's complaint, with the parameter as the caller knows it."""
    if error.param is not None:
        head, bracket, rest = error.param.partition("[")
        error.param = _PARAMS.get(head, head) + (f"{bracket}{rest}" if head not in _PARAMS else "")
    return error


def shorten(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages without the oldest quarter, whole turns at a time; ``None`` where no more can
    go: instructions and the last turn stay.
    """
    start = 1 if messages and messages[0]["role"] == "system" else 0
    turns = [at for at in range(start, len(messages)) if messages[at]["role"] == "user"]
    turns = [start, *(at for at in turns if at > start)]
    if len(turns) < 2:
        return None
    first_kept = turns[max(1, len(turns) // 4)]
    return messages[:start] + messages[first_kept:]
