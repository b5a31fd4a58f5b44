"""Tokens, made up but consistent: words are tokens, and their ids lead back to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.upstream.answers import (
    Answer,
    RefusedError,
    invalid,
    json_answer,
    missing,
    vllm_error,
)

if TYPE_CHECKING:
    from tests.support.upstream.vllm import Call, Vllm

_TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_words: list[str] = ["<|start|>"]
_ids: dict[str, int] = {}


def split(text: str) -> list[str]:
    """The text as tokens, each with the blank before it."""
    return _TOKEN.findall(text)


def encode(text: str) -> list[int]:
    """Token ids; the same token has the same id as long as the process lives."""
    for token in (tokens := split(text)):
        if token not in _ids:
            _ids[token] = len(_words)
            _words.append(token)
    return [_ids[token] for token in tokens]


def decode(ids: list[int]) -> str:
    """The text of these ids."""
    return "".join(_words[one] for one in ids if 0 <= one < len(_words))


def text_of(messages: Any) -> str:
    """All text of a conversation."""
    parts: list[str] = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, str):
            parts.append(content)
        else:
            parts.extend(part.get("text", "") for part in content)
    return "\n".join(parts)


def tokenize(server: Vllm, call: Call) -> Answer:
    """``POST /tokenize``."""
    body = call.body
    if "messages" not in body and "prompt" not in body:
        raise RefusedError(missing(body, "prompt", "messages"))
    text = text_of(body["messages"]) if "messages" in body else body["prompt"]
    ids = encode(text)
    strings = split(text) if body.get("return_token_strs") else None
    return json_answer(
        {
            "count": len(ids),
            "max_model_len": server.max_model_len,
            "tokens": ids,
            "token_strs": strings,
        }
    )


def detokenize(_server: Vllm, call: Call) -> Answer:
    """``POST /detokenize``."""
    return json_answer({"prompt": decode(call.body.get("tokens", []))})


def check_sampling(server: Vllm, body: dict[str, Any]) -> None:
    """Refuse sampling parameters as vLLM refuses them."""
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if isinstance(value, str):
            message = "Input should be a valid number, unable to parse string as a number"
            raise RefusedError(invalid("float_parsing", f"body.{name}", message, value))
    _check_ranges(server, body)
    if body.get("stream_options") and not body.get("stream"):
        message = "Stream options can only be defined when `stream=True`."
        raise RefusedError(_out_of_range("stream_options", message))


def _check_ranges(server: Vllm, body: dict[str, Any]) -> None:
    temperature, top_p, count = body.get("temperature"), body.get("top_p"), body.get("n")
    name = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    most, limit = body.get(name), server.max_model_len
    if temperature is not None and temperature < 0:
        message = f"temperature must be non-negative, got {float(temperature)}."
        raise RefusedError(_out_of_range("temperature", message, float(temperature)))
    if top_p is not None and not 0 < top_p <= 1:
        message = f"top_p must be in (0, 1], got {float(top_p)}."
        raise RefusedError(_out_of_range("top_p", message, float(top_p)))
    if count is not None and count < 1:
        raise RefusedError(vllm_error(400, f"n must be at least 1, got {count}."))
    if body.get("max_tokens") == 0:
        raise RefusedError(_out_of_range("max_tokens", "max_tokens must be at least 1, got 0.", 0))
    if most is not None and most > limit:
        message = (
            f"{name}={most} cannot be greater than max_model_len={limit}."
            " Please request fewer output tokens."
        )
        raise RefusedError(_out_of_range(name, message, most))
    if (top := body.get("top_logprobs") or 0) > 20:
        message = f"Requested sample logprobs of {top}, which is greater than max allowed: 20"
        raise RefusedError(_out_of_range("logprobs", message, top))


def check_length(server: Vllm, prompt_tokens: int) -> None:
    """Refuse a prompt that does not fit into the context."""
    if prompt_tokens <= server.max_model_len:
        return
    least = server.max_model_len + 1
    message = (
        f"This model's maximum context length is {server.max_model_len} tokens. However, your"
        f" prompt contains at least {least} input tokens, which exceeds this limit even without any"
        " output tokens. Please reduce the length of the input prompt."
    )
    raise RefusedError(_out_of_range("input_tokens", message, least))


def _out_of_range(name: str, message: str, value: float | None = None) -> Any:
    given = f"(parameter={name})" if value is None else f"(parameter={name}, value={value})"
    return vllm_error(400, f"{message} {given}", param=name)
