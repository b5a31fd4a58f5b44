"""What of an item is shown only to callers who ask for it: the ``include`` parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from gateway.errors import InvalidRequest

__all__ = ["Include", "includes", "shown"]

Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
"""OpenAI's values. URLs of images are always shown."""

_KNOWN: tuple[str, ...] = get_args(Include)


def includes(values: Sequence[str], param: str = "include") -> frozenset[Include]:
    """The values of a request's ``include``. Raises ``InvalidRequest`` that names the wrong one."""
    for position, value in enumerate(values):
        if value not in _KNOWN:
            known = ", ".join(f"'{one}'" for one in _KNOWN[:-1])
            raise InvalidRequest(
                f"Invalid value: '{value[:100]}'. Supported values are: {known}, and "
                f"'{_KNOWN[-1]}'.",
                param=f"{param}[{position}]",
                code="invalid_value",
            )
    return frozenset(cast("Sequence[Include]", values))


def shown(item: dict[str, Any], include: frozenset[str]) -> dict[str, Any]:
    """The item as a caller sees it who asked for ``include``; the given one stays as it is."""
    match item.get("type"):
        case "message" if "message.output_text.logprobs" not in include:
            return {**item, "content": [_without_logprobs(part) for part in item["content"]]}
        case "reasoning" if "reasoning.encrypted_content" not in include:
            return _without(item, "encrypted_content")
        case "file_search_call" if "file_search_call.results" not in include:
            return {**item, "results": None}
        case "web_search_call":
            return _web_search(item, include)
    return item


def _web_search(item: dict[str, Any], include: frozenset[str]) -> dict[str, Any]:
    if "web_search_call.results" not in include:
        item = _without(item, "results")
    action = item.get("action")
    if "web_search_call.action.sources" in include or action is None:
        return item
    return {**item, "action": _without(action, "sources")}


def _without_logprobs(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "logprobs": []} if part["type"] == "output_text" else part


def _without(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != key}
