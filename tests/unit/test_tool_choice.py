"""A choice of tools means the same for chat completions as it did for the response."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import InvalidRequest
from gateway.ports import ServedTool
from gateway.responses.tool_choice import parse_tool_choice
from gateway.responses.tool_definitions import Tool
from gateway.responses.toolbox import Toolbox

TOOLS: list[Any] = msgspec.convert(
    [
        {"type": "function", "name": "f"},
        {"type": "function", "name": "g"},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "web_search_preview"},
        {"type": "mcp", "server_label": "s", "server_url": "http://s"},
    ],
    list[Tool],
)
SERVED = {"s": [ServedTool(name=name, description="", input_schema={}) for name in ("t", "u")]}
ALL = ["f", "g", "file_search", "web_search", "t", "u"]


def chosen(given: Any, *, first: bool = True, served: Any = SERVED) -> tuple[list[str], Any]:
    box = Toolbox(TOOLS, served, approval_is_usual=False)
    functions, choice = parse_tool_choice(given, TOOLS).functions(box, first=first)
    if isinstance(choice, dict):
        choice = choice["function"]["name"]
    return [one["function"]["name"] for one in functions], choice


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


F = {"type": "function", "name": "f"}
MCP = {"type": "mcp", "server_label": "s"}


@pytest.mark.parametrize(
    ("given", "first", "later"),
    [
        (None, (ALL, "auto"), (ALL, "auto")),
        ("auto", (ALL, "auto"), (ALL, "auto")),
        ("none", (ALL, "none"), (ALL, "none")),
        ("required", (ALL, "required"), (ALL, "auto")),
        (F, (["f"], "f"), (ALL, "auto")),
        ({"type": "file_search"}, (["file_search"], "file_search"), (ALL, "auto")),
        ({"type": "web_search"}, (["web_search"], "web_search"), (ALL, "auto")),
        ({"type": "web_search_preview"}, (["web_search"], "web_search"), (ALL, "auto")),
        (MCP, (["t", "u"], "required"), (ALL, "auto")),
        ({**MCP, "name": "u"}, (["u"], "u"), (ALL, "auto")),
        (allowed("auto", F, MCP), (["f", "t", "u"], "auto"), (["f", "t", "u"], "auto")),
        (allowed("required", F), (["f"], "required"), (["f"], "auto")),
        (
            allowed("auto", {"type": "file_search"}),
            (["file_search"], "auto"),
            (["file_search"], "auto"),
        ),
    ],
)
def test_a_choice_holds_for_the_first_turn(given: Any, first: Any, later: Any) -> None:
    """Later turns are not forced, else a response would never end; allowed tools stay so."""
    assert chosen(given) == first
    assert chosen(given, first=False) == later


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("any", "tool_choice"),
        ({"type": "function", "name": "h"}, "tool_choice"),
        ({"type": "function"}, "tool_choice"),
        ({"type": "mcp", "server_label": "other"}, "tool_choice"),
        ({"type": "computer"}, "tool_choice"),
        (allowed("auto", {"type": "function", "name": "h"}), "tool_choice"),
        (allowed("none", F), "tool_choice.mode"),
        (allowed("auto"), "tool_choice.tools"),
        ([], "tool_choice"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [5]}, "tool_choice.tools[0]"),
    ],
)
def test_a_choice_of_what_there_is_not_is_refused(given: Any, param: str) -> None:
    """With the parameter at fault."""
    with pytest.raises(InvalidRequest) as raised:
        parse_tool_choice(given, TOOLS)
    assert raised.value.param == param


def test_required_needs_tools() -> None:
    """There has to be something to call."""
    with pytest.raises(InvalidRequest):
        parse_tool_choice("required", [])
    assert chosen(MCP, served={"s": []}) == ([], "required")
