"""What a stream of a response has to be, whatever it tells of.

final = whole_stream(events_of(answer.content))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

import pydantic
from openai.types.responses import ResponseStreamEvent

__all__ = ["events_of", "open_responses", "strict_event", "whole_stream"]

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
REQUIRED = [
    "id",
    "object",
    "created_at",
    "status",
    "model",
    "output",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "temperature",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "store",
    "background",
    "service_tier",
    "metadata",
]
NULLABLE = [
    "completed_at",
    "incomplete_details",
    "previous_response_id",
    "instructions",
    "error",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
]
"""Open Responses: not null, and null or not."""

_UNION = get_args(ResponseStreamEvent)[0]
_MODELS = {get_args(one.model_fields["type"].annotation)[0]: one for one in get_args(_UNION)}


@cache
def _adapter(kind: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(_MODELS[kind])


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream, each named as its type; comments are left out."""
    assert stream.endswith(b"\n\n"), stream[-100:]
    events = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def strict_event(event: dict[str, Any]) -> None:
    """Fails where the event isn't one of the SDK's types to the letter."""
    assert event["type"] in _MODELS, f"the SDK knows no {event['type']}"
    try:
        _adapter(event["type"]).validate_json(json.dumps(event), strict=True)
    except pydantic.ValidationError as error:
        raise AssertionError(f"{event}: {error}") from None


def open_responses(response: dict[str, Any]) -> None:
    """Fails where a key is missing, or null, that Open Responses wants."""
    missing = [key for key in (*REQUIRED, *NULLABLE) if key not in response]
    assert not missing, missing
    null = [key for key in REQUIRED if response[key] is None]
    assert not null, null
    for item in response["output"]:
        assert item["id"], item
        if item["type"] in ("message", "function_call"):
            assert item["status"], item
        for part in item.get("content") or ():
            if part["type"] == "output_text":
                assert isinstance(part["annotations"], list), part
                assert isinstance(part["logprobs"], list), part


def whole_stream(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The response at the end of the stream, after a look at all that leads to it."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        strict_event(event)
    first, last = events[0], events[-1]
    assert first["type"] == "response.created", first
    assert first["response"]["status"] == "in_progress", first
    assert first["response"]["output"] == [], first
    assert [event["type"] for event in events if event["type"] in TERMINAL] == [last["type"]]
    shown = [event["response"] for event in events if "response" in event]
    assert len({one["id"] for one in shown}) == 1
    assert len({one["created_at"] for one in shown}) == 1
    for one in shown:
        open_responses(one)
    final = last["response"]
    assert last["type"] == f"response.{final['status']}"
    items = _Items()
    for event in events:
        items.take(event)
    assert [place for place, item in enumerate(items.added) if place not in items.done] == []
    assert [items.done[place] for place in range(len(items.added))] == final["output"]
    return final


class _Items:
    """What the events have told of the items so far."""

    def __init__(self) -> None:
        self.added: list[dict[str, Any]] = []
        self.done: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}
        self._whole: dict[tuple[int, int], dict[str, Any]] = {}
        self._written: dict[int, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if "output_index" not in event:
            return
        place = event["output_index"]
        if kind == "response.output_item.added":
            assert place == len(self.added), event
            self.added.append(event["item"])
            return
        assert place < len(self.added), event
        assert place not in self.done, f"{event} after its item was done"
        if kind == "response.output_item.done":
            self._finish(place, event["item"])
            return
        assert event["item_id"] == self.added[place]["id"], event
        if "content_index" in event:
            self._part(kind.removeprefix("response."), (place, event["content_index"]), event)
        elif kind.endswith("_arguments.delta"):
            self._written[place] = self._written.get(place, "") + event["delta"]
        elif kind.endswith("_arguments.done"):
            assert event["arguments"] == self._written.get(place, ""), event

    def _part(self, kind: str, place: tuple[int, int], event: dict[str, Any]) -> None:
        if kind == "content_part.added":
            assert place not in self._parts, event
            self._parts[place] = json.loads(json.dumps(event["part"]))
            assert not self._parts[place].get(_field(event["part"])), event
            return
        part = self._parts[place]
        assert place not in self._whole, f"{event} after its part was done"
        field = _field(part)
        if kind == "content_part.done":
            assert event["part"] == part, (event, part)
            self._whole[place] = part
        elif kind.endswith(".delta"):
            assert kind == f"{part['type']}.delta", event
            part[field] += event["delta"]
            if "logprobs" in event:
                part["logprobs"] += event["logprobs"]
        elif kind.endswith("annotation.added"):
            assert event["annotation_index"] == len(part["annotations"]), event
            part["annotations"].append(event["annotation"])
        elif kind.endswith(".done"):
            assert kind == f"{part['type']}.done", event
            assert event[field] == part[field], event
            assert event.get("logprobs", []) == part.get("logprobs", []), event

    def _finish(self, place: int, item: dict[str, Any]) -> None:
        added = self.added[place]
        assert (item["id"], item["type"]) == (added["id"], added["type"]), item
        assert item.get("status") not in ("in_progress", "searching", "calling"), item
        if item["type"] in ("message", "reasoning"):
            parts = [whole for (of, _), whole in sorted(self._whole.items()) if of == place]
            assert item["content"] == parts, (item, parts)
        if "arguments" in item and item["type"] != "mcp_approval_request":
            assert item["arguments"] == self._written.get(place, ""), item
        self.done[place] = item


def _field(part: dict[str, Any]) -> str:
    return "refusal" if part["type"] == "refusal" else "text"
