"""Which tools the model may, or has to, call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.http.validation import explain
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
    tools: list[_Named] | None = None


class _Given(Struct, frozen=True):
    """So that complaints name the parameter."""

    tool_choice: str | _Named


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
    try:
        named = msgspec.convert({"tool_choice": given}, _Given).tool_choice
    except msgspec.ValidationError as error:
        raise explain(error, _Given) from None
    if isinstance(named, str):
        if named not in _WORDS:
            raise _invalid(f"'{named[:50]}' is not one of 'none', 'auto' and 'required'.")
        if named == "required" and not tools:
            raise _invalid("'required' needs 'tools'.")
        return ToolChoice(mode=named)
    if named.type == "allowed_tools":
        return _allowed(named, tools)
    _check(named, tools)
    return ToolChoice(mode="required", among=(named,), forced=True)


def _allowed(named: _Named, tools: Sequence[Tool]) -> ToolChoice:
    if named.mode not in ("auto", "required"):
        raise _invalid("it has to be 'auto' or 'required'.", "tool_choice.mode")
    if not named.tools:
        raise _invalid("it has to be a list of tools.", "tool_choice.tools")
    for one in named.tools:
        _check(one, tools)
    return ToolChoice(mode=named.mode, among=tuple(named.tools))


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


def _invalid(message: str, param: str = "tool_choice") -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for '{param}': {message}", param=param, code="invalid_value"
    )
