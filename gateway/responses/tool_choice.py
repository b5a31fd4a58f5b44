"""Which tools the model may, or has to, call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.responses.tool_definitions import (
    FileSearchTool,
    FunctionTool,
    McpTool,
    Tool,
)
from gateway.responses.toolbox import Binding, Toolbox

__all__ = ["ToolChoice", "parse_tool_choice"]

_WORDS = ("none", "auto", "required")
_WEB = frozenset(
    {
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)


class _Named(Struct, frozen=True):
    """One tool, or some tools of one kind."""

    type: str
    name: str | None = None
    server_label: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


class ToolChoice(Struct, frozen=True, kw_only=True):
    """``mode`` is none, auto or required; ``among`` keeps only some of the tools.

    With ``forced`` the first turn has to call one of ``among``; later turns may do as they like,
    else a response would never end.
    """

    mode: str = "auto"
    among: tuple[_Named, ...] | None = None
    forced: bool = False

    def functions(self, toolbox: Toolbox, *, first: bool) -> tuple[list[dict[str, Any]], Any]:
        """The functions and ``tool_choice`` of a chat completion."""
        bindings = list(toolbox)
        if self.among is not None and (first or not self.forced):
            bindings = [one for one in bindings if any(_is(named, one) for named in self.among)]
        mode = self.mode if first or self.mode == "none" else "auto"
        choice: Any = mode
        if mode == "required" and self.forced and len(bindings) == 1:
            choice = {"type": "function", "function": {"name": bindings[0].name}}
        return [one.function for one in bindings], choice


def parse_tool_choice(given: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Raises ``InvalidRequest`` for a choice that there isn't, or of a tool that isn't given."""
    if given is None:
        return ToolChoice()
    if isinstance(given, str):
        if given not in _WORDS:
            raise _invalid(f"'{given[:50]}' is not one of 'none', 'auto' and 'required'.")
        if given == "required" and not tools:
            raise _invalid("tool_choice 'required' needs 'tools'.")
        return ToolChoice(mode=given)
    try:
        named = msgspec.convert(given, _Named)
    except msgspec.ValidationError as error:
        raise _invalid(f"{error}.") from None
    if named.type == "allowed_tools":
        if named.mode not in ("auto", "required") or not named.tools:
            raise _invalid("allowed_tools needs 'mode' (auto or required) and 'tools'.")
        try:
            among = tuple(msgspec.convert(one, _Named) for one in named.tools)
        except msgspec.ValidationError as error:
            raise _invalid(f"{error}.") from None
        for one in among:
            _check(one, tools)
        return ToolChoice(mode=named.mode, among=among)
    _check(named, tools)
    return ToolChoice(mode="required", among=(named,), forced=True)


def _check(named: _Named, tools: Sequence[Tool]) -> None:
    if not any(_may_be(named, tool) for tool in tools):
        name = named.name or named.server_label
        what = f"'{named.type}'" + (f" named '{name}'" if name else "")
        raise _invalid(f"Tool choice {what} not found in 'tools' parameter.")


def _is(named: _Named, binding: Binding) -> bool:
    if not _may_be(named, binding.tool):
        return False
    return not (named.type == "mcp" and named.name and named.name != binding.served)


def _may_be(named: _Named, tool: Tool) -> bool:
    match tool:
        case FunctionTool():
            return named.type == "function" and named.name == tool.name
        case McpTool():
            return named.type == "mcp" and named.server_label == tool.server_label
        case FileSearchTool():
            return named.type == "file_search"
    return named.type in _WEB


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for 'tool_choice': {message}", param="tool_choice", code="invalid_value"
    )
