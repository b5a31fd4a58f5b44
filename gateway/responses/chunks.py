"""What is read of the chunks of a chat completion's stream."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.observability.call import Usage

__all__ = ["Chunk", "Delta", "ToolCallDelta", "decode_chunk"]


class FunctionDelta(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: FunctionDelta = FunctionDelta()


class Delta(Struct, frozen=True):
    """``reasoning`` is what vLLM calls it today; ``reasoning_content`` what it did."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class Logprobs(Struct, frozen=True):
    content: list[dict[str, Any]] | None = None


class Choice(Struct, frozen=True):
    delta: Delta = Delta()
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Chunk(Struct, frozen=True):
    choices: list[Choice] = []
    usage: Usage | None = None


_decoder = msgspec.json.Decoder(Chunk)


def decode_chunk(data: bytes) -> Chunk:
    """One event's data. Raises what decoding raises (``NOT_JSON``)."""
    return _decoder.decode(data)
