"""Tools have names of their own for the model, which lead back to what is behind them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.ports import ServedTool
from gateway.responses.tool_definitions import Tool, has_secrets, shown_tool
from gateway.responses.toolbox import Toolbox, is_allowed, needs_approval


def tool(kind: str, **fields: Any) -> Any:
    return msgspec.convert({"type": kind, **fields}, Tool)


def function(name: str, **fields: Any) -> Any:
    return tool("function", name=name, **fields)


def mcp(label: str = "s", **fields: Any) -> Any:
    return tool("mcp", server_label=label, server_url="http://s", **fields)


def served(name: str, **fields: Any) -> ServedTool:
    return ServedTool(name=name, description="d", input_schema={"type": "object"}, **fields)


def toolbox(*tools: Any, **of: list[ServedTool]) -> Toolbox:
    return Toolbox(tools, of, approval_is_usual=False)


def names(box: Toolbox) -> list[str]:
    return [one.name for one in box]


SEARCH = tool("file_search", vector_store_ids=["vs_1"])
WEB = tool("web_search")


def test_a_callers_functions_keep_their_names() -> None:
    """Whatever else is called so, and in whichever order they come."""
    box = toolbox(SEARCH, WEB, mcp(), function("file_search"), function("t"), s=[served("t")])
    assert names(box) == ["file_search", "t", "file_search_2", "web_search", "s_t"]
    found = box.find("file_search")
    assert found
    assert not found.hosted
    assert box.find("nope") is None


def test_the_same_names_at_two_servers_are_two() -> None:
    """With the label in front, and a number where that is taken as well."""
    box = toolbox(
        mcp("a"), mcp("b"), function("b_t"), a=[served("t")], b=[served("t"), served("t")]
    )
    assert names(box) == ["b_t", "t", "b_t_2", "b_t_3"]
    found = box.of_server("b", "t")
    assert found
    assert (found.name, found.served) == ("b_t_2", "t")
    assert box.of_server("c", "t") is None


def test_names_are_such_as_templates_take() -> None:
    """Short, and of letters, digits, dash and underscore; the server still hears its own."""
    odd = "näme with/slash." + "x" * 100
    box = toolbox(mcp(), s=[served(odd), served(odd)])
    assert all(len(one) <= 64 for one in names(box))
    assert len(set(names(box))) == 2
    assert all(one.isascii() for one in names(box))
    assert {one.served for one in box} == {odd}


def test_functions_are_shown_as_they_are() -> None:
    """With parameters, even where the caller gives none."""
    [one] = toolbox(function("f", description="d", parameters={"a": 1}, strict=True))
    assert one.function == {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"a": 1}, "strict": True},
    }
    [bare] = toolbox(function("f"))
    assert bare.function["function"]["parameters"] == {"type": "object", "properties": {}}
    assert not toolbox()


TOOL = served("t")
READS = served("r", annotations={"readOnlyHint": True})


@pytest.mark.parametrize(
    ("allowed", "tools"),
    [
        (None, "tr"),
        ([], ""),
        (["t"], "t"),
        ({"tool_names": ["r"]}, "r"),
        ({"read_only": True}, "r"),
        ({"read_only": False}, "t"),
        ({"tool_names": ["t"], "read_only": True}, ""),
        ({}, "tr"),
    ],
)
def test_only_allowed_tools_are_there(allowed: Any, tools: str) -> None:
    """By name, and by whether they only read."""
    server = mcp(allowed_tools=allowed)
    assert "".join(one.name for one in (TOOL, READS) if is_allowed(server, one)) == tools


@pytest.mark.parametrize(
    ("wanted", "usually", "asked"),
    [
        (None, True, "tr"),
        (None, False, ""),
        ("always", False, "tr"),
        ("never", True, ""),
        ({"always": ["t"]}, True, "t"),
        ({"always": {"tool_names": ["t"]}}, False, "t"),
        ({"never": {"tool_names": ["t"]}}, True, "r"),
        ({"never": {"read_only": True}}, True, "t"),
        ({"never": ["t"]}, False, ""),
        ({"always": ["t"], "never": ["r"]}, True, "t"),
        ({"always": ["t"], "never": ["t"]}, False, "t"),
    ],
)
def test_approval_is_asked_for_as_the_caller_says(wanted: Any, usually: Any, asked: str) -> None:
    """Where it doesn't, as the profile does."""
    server = mcp(require_approval=wanted)
    found = [one.name for one in (TOOL, READS) if needs_approval(server, one, usually=usually)]
    assert "".join(found) == asked


def test_secrets_are_not_shown() -> None:
    """A response's tools are those of the request, without what proves who the caller is."""
    server = mcp(authorization="token", headers={"x": "key"})
    assert has_secrets(server)
    assert not has_secrets(mcp())
    shown = msgspec.json.encode(shown_tool(server)).decode()
    assert "token" not in shown
    assert "key" not in shown
    assert shown_tool(SEARCH) == {"type": "file_search", "vector_store_ids": ["vs_1"]}
    assert set(shown_tool(function("f"))) == {
        "type",
        "name",
        "description",
        "parameters",
        "strict",
    }
