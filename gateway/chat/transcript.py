"""A chat completion put together from what passes by: the messages in and the messages out.

For traces that may hold content (opt-in), in the JSON form of the GenAI conventions.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from gateway.chat.schemas import ContentMessage
from gateway.http.validation import NOT_JSON
from gateway.observability import semconv

MAX_CONTENT_CHARACTERS = 64 * 1024
"""Of one message; the rest of a longer one is cut off, since exporters refuse huge spans."""


class _Request(Struct, frozen=True):
    messages: list[ContentMessage] = []


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Delta(Struct, frozen=True):
    content: str | None = None
    tool_calls: list[_ToolCallDelta] | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    message: ContentMessage | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Answer(Struct, frozen=True):
    choices: list[_Choice] = []


class _Output(Struct):
    """One choice as far as it has come."""

    text: list[str] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None


class ChatTranscript:
    """A :class:`~gateway.relay.operation.Tee` for chat completions."""

    def __init__(self, body: bytes) -> None:
        try:
            self._input = msgspec.json.decode(body, type=_Request).messages
        except NOT_JSON:
            self._input = []  # nested too deep to be captured; the model server may have it
        self._outputs: dict[int, _Output] = {}
        self._decoder = msgspec.json.Decoder(_Answer)

    def answer(self, body: bytes) -> None:
        for choice in self._choices(body):
            output = self._outputs.setdefault(choice.index, _Output())
            output.finish_reason = choice.finish_reason
            if choice.message is not None:
                output.text.append(_text(choice.message.content))
                output.tool_calls.update(enumerate(_calls(choice.message)))

    def event(self, data: bytes) -> None:
        for choice in self._choices(data):
            output = self._outputs.setdefault(choice.index, _Output())
            output.finish_reason = choice.finish_reason or output.finish_reason
            if choice.delta is None:
                continue
            output.text.append(choice.delta.content or "")
            for part in choice.delta.tool_calls or ():
                call = output.tool_calls.setdefault(
                    part.index, {"id": None, "name": "", "arguments": ""}
                )
                call["id"] = part.id or call["id"]
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""

    def content(self) -> dict[str, str]:
        """``gen_ai.input.messages`` and ``gen_ai.output.messages``."""
        sent = [{"role": message.role, "parts": _parts(message)} for message in self._input]
        received = [
            {
                "role": "assistant",
                "parts": _output_parts(output),
                "finish_reason": output.finish_reason or "",
            }
            for _, output in sorted(self._outputs.items())
        ]
        return {
            semconv.INPUT_MESSAGES: msgspec.json.encode(sent).decode(),
            semconv.OUTPUT_MESSAGES: msgspec.json.encode(received).decode(),
        }

    def _choices(self, data: bytes) -> list[_Choice]:
        try:
            return self._decoder.decode(data).choices
        except NOT_JSON:
            return []  # not in a shape that can be captured; the caller gets it all the same


def _parts(message: ContentMessage) -> list[dict[str, Any]]:
    text = _text(message.content)
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": text}]
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    return parts + [_tool_call(call) for call in _calls(message)]


def _calls(message: ContentMessage) -> list[dict[str, Any]]:
    """Its tool calls, each with id, name and arguments side by side."""
    calls = message.tool_calls if isinstance(message.tool_calls, list) else []
    return [
        {**call["function"], "id": call.get("id")}
        for call in calls
        if isinstance(call, dict) and isinstance(call.get("function"), dict)
    ]


def _output_parts(output: _Output) -> list[dict[str, Any]]:
    text = "".join(output.text)[:MAX_CONTENT_CHARACTERS]
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    return parts + [_tool_call(call) for _, call in sorted(output.tool_calls.items())]


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": call.get("name"),
        "arguments": str(call.get("arguments", ""))[:MAX_CONTENT_CHARACTERS],
    }


def _text(content: Any) -> str:
    """The text of a message; of its other parts (images, audio) only what kind they are."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content[:MAX_CONTENT_CHARACTERS]
    parts = content if isinstance(content, list) else [content]
    words = [
        str(part.get("text") or f"[{part.get('type', 'part')}]")
        if isinstance(part, dict)
        else str(part)
        for part in parts
    ]
    return "\n".join(words)[:MAX_CONTENT_CHARACTERS]
