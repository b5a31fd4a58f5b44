"""A streamed chat completion put together again, as a plain answer would have been."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

__all__ = ["Assembly"]

_TEXTS = ("content", "refusal", "reasoning", "reasoning_content")
"""Of a message; they come in pieces."""


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Delta(Struct, frozen=True):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Logprobs(Struct, frozen=True):
    content: list[Raw] | None = None
    refusal: list[Raw] | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


class _Chunk(Struct, frozen=True):
    id: str | None = None
    created: int | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None


class _Call(Struct):
    """A call of a tool as far as it has come."""

    id: str | None = None
    type: str = "function"
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class _Told(Struct):
    """A choice as far as it has come."""

    role: str = "assistant"
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: dict[str, list[Raw]] = field(default_factory=dict)
    finish_reason: str | None = None
    stop_reason: Any = None


_chunks = msgspec.json.Decoder(_Chunk)


class Assembly:
    """Takes events, gives the ``chat.completion`` object that they add up to.

    ``size`` is about the bytes that are held.
    """

    def __init__(self) -> None:
        self.size = 0
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._choices: dict[int, _Told] = {}

    def add(self, data: bytes) -> None:
        """One event's data. Raises what decoding raises (``NOT_JSON``) where it is no chunk."""
        chunk = _chunks.decode(data)
        for name in ("id", "created", "system_fingerprint", "service_tier"):
            if (value := getattr(chunk, name)) is not None:
                self._head[name] = value
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            told = self._choices.setdefault(choice.index, _Told())
            told.finish_reason = choice.finish_reason or told.finish_reason
            told.stop_reason = choice.stop_reason or told.stop_reason
            if choice.logprobs is not None:
                self._add_logprobs(told, choice.logprobs)
            if choice.delta is not None:
                self._add_delta(told, choice.delta)

    def completion(self, model: str) -> dict[str, Any]:
        """The object; ``model`` is the caller's name of the model."""
        return {
            "id": self._head.get("id"),
            "object": "chat.completion",
            "created": self._head.get("created"),
            "model": model,
            "choices": [_choice(index, self._choices[index]) for index in sorted(self._choices)],
            "usage": self._usage,
            "system_fingerprint": self._head.get("system_fingerprint"),
            "service_tier": self._head.get("service_tier"),
        }

    def _add_delta(self, told: _Told, delta: _Delta) -> None:
        told.role = delta.role or told.role
        for name in _TEXTS:
            if (text := getattr(delta, name)) is not None:
                told.texts.setdefault(name, []).append(text)
                self.size += len(text)
        for part in delta.tool_calls or ():
            call = told.calls.setdefault(part.index, _Call())
            call.id = part.id or call.id
            call.type = part.type or call.type
            if part.function is not None:
                call.name += part.function.name or ""
                call.arguments.append(part.function.arguments or "")
                self.size += len(call.arguments[-1])

    def _add_logprobs(self, told: _Told, logprobs: _Logprobs) -> None:
        for name in ("content", "refusal"):
            tokens = getattr(logprobs, name)
            if tokens is not None:
                kept = [token.copy() for token in tokens]
                told.logprobs.setdefault(name, []).extend(kept)
                self.size += sum(len(bytes(token)) for token in kept)


def _choice(index: int, told: _Told) -> dict[str, Any]:
    texts = {name: "".join(pieces) for name, pieces in told.texts.items()}
    message: dict[str, Any] = {"role": told.role, "content": None, "refusal": None, **texts}
    if told.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for _, call in sorted(told.calls.items())
        ]
        message["content"] = message["content"] or None
    logprobs: dict[str, Any] | None = None
    if told.logprobs:
        logprobs = {"content": None, "refusal": None}
        for name, tokens in told.logprobs.items():
            logprobs[name] = [msgspec.json.decode(token) for token in tokens]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": told.finish_reason,
        "stop_reason": told.stop_reason,
    }
