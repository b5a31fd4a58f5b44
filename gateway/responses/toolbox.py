"""The tools of a response as the model knows them: functions with names of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from gateway.ports import ServedTool
from gateway.responses.tool_definitions import (
    ApprovalFilter,
    FileSearchTool,
    FunctionTool,
    McpTool,
    Tool,
    ToolFilter,
)

__all__ = ["Binding", "Toolbox", "is_allowed", "needs_approval"]

_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64
_PLAIN_WORDS = frozenset(
    {
        "$schema",
        "additionalProperties",
        "default",
        "description",
        "enum",
        "items",
        "properties",
        "required",
        "title",
        "type",
    }
)
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class Binding(Struct, frozen=True, kw_only=True):
    """A function that the model may call, and the tool behind it.

    ``served`` is the tool's name at its MCP server.
    """

    name: str
    tool: Tool
    function: dict[str, Any]
    served: str = ""
    approval: bool = False

    @property
    def hosted(self) -> bool:
        """Whether the gateway runs it."""
        return not isinstance(self.tool, FunctionTool)


class Toolbox:
    """What there is to call, by the name that the model uses.

    A name that is taken gets its server's label, or a number, in front; what chat templates and
    servers don't take in a name becomes an underscore.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        served: Mapping[str, Sequence[ServedTool]],
        *,
        approval_is_usual: bool,
    ) -> None:
        self._bindings: dict[str, Binding] = {}
        tools = list(tools)
        # The caller's own functions have the first choice of names: it looks them up by name.
        for tool in sorted(tools, key=lambda one: not isinstance(one, FunctionTool)):
            if isinstance(tool, FunctionTool):
                self._add(tool.name, tool, _of_function(tool))
            elif isinstance(tool, McpTool):
                for one in served.get(tool.server_label, ()):
                    self._add(
                        one.name,
                        tool,
                        _of_served(one),
                        served=one.name,
                        approval=needs_approval(tool, one, usually=approval_is_usual),
                    )
            elif isinstance(tool, FileSearchTool):
                self._add("file_search", tool, _FILE_SEARCH)
            else:
                self._add("web_search", tool, _WEB_SEARCH)

    def __bool__(self) -> bool:
        return bool(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings.values())

    def find(self, name: str) -> Binding | None:
        return self._bindings.get(name)

    def of_server(self, label: str, name: str) -> Binding | None:
        """The tool that is called so at this MCP server."""
        for one in self._bindings.values():
            tool = one.tool
            if isinstance(tool, McpTool) and (tool.server_label, one.served) == (label, name):
                return one
        return None

    def _add(
        self,
        wanted: str,
        tool: Tool,
        function: dict[str, Any],
        *,
        served: str = "",
        approval: bool = False,
    ) -> None:
        name = self._free_name(wanted, tool)
        self._bindings[name] = Binding(
            name=name,
            tool=tool,
            function={"type": "function", "function": {"name": name, **function}},
            served=served,
            approval=approval,
        )

    def _free_name(self, wanted: str, tool: Tool) -> str:
        if isinstance(tool, FunctionTool):
            return wanted
        name = _ODD.sub("_", wanted)[:_LONGEST_NAME]
        if name in self._bindings and isinstance(tool, McpTool):
            name = _ODD.sub("_", f"{tool.server_label}_{wanted}")[:_LONGEST_NAME]
        number = 2
        free = name
        while free in self._bindings:
            free = f"{name[: _LONGEST_NAME - 4]}_{number}"
            number += 1
        return free


def is_allowed(tool: McpTool, served: ServedTool) -> bool:
    """Whether the caller lets the model have this tool of the server's."""
    allowed = tool.allowed_tools
    if allowed is None:
        return True
    return _matches(allowed, served)


def needs_approval(tool: McpTool, served: ServedTool, *, usually: bool) -> bool:
    """Whether the caller wants to be asked before this tool is run."""
    wanted = tool.require_approval
    if wanted is None:
        return usually
    if isinstance(wanted, ApprovalFilter):
        if wanted.always is not None and _matches(wanted.always, served):
            return True
        if wanted.never is not None and _matches(wanted.never, served):
            return False
        # With "always" alone the others are free; else what isn't named stays as usual.
        return usually if wanted.always is None else False
    return wanted == "always"


def _matches(given: list[str] | ToolFilter, served: ServedTool) -> bool:
    if isinstance(given, list):
        return served.name in given
    if given.tool_names is not None and served.name not in given.tool_names:
        return False
    if given.read_only is not None:
        reads = bool((served.annotations or {}).get("readOnlyHint"))
        return reads == given.read_only
    return True


def _of_function(tool: FunctionTool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "description": tool.description or "",
        "parameters": tool.parameters or _NO_PARAMETERS,
    }
    if tool.strict:
        function["strict"] = True
    return function


def _of_served(tool: ServedTool) -> dict[str, Any]:
    """A server's tool as a function; the model is held to the schema where it is a plain one.

    Small models write arguments that fit only when they are made to.
    """
    schema = tool.input_schema or _NO_PARAMETERS
    function: dict[str, Any] = {"description": tool.description or "", "parameters": schema}
    if _is_plain(schema):
        function["strict"] = True
    return function


def _is_plain(schema: Any) -> bool:
    """Whether every vLLM's grammar knows all that this schema says."""
    if not isinstance(schema, dict) or not _PLAIN_WORDS.issuperset(schema):
        return False
    inner = [*schema.get("properties", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    return all(_is_plain(one) for one in inner)


def _searching(what: str) -> dict[str, Any]:
    return {
        "description": what,
        "parameters": {
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "description": "What to look for, in a few words.",
                    "maxLength": 200,
                }
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        "strict": True,
    }


_FILE_SEARCH = _searching(
    "Search the documents that the user has provided. Returns passages with the names of their "
    "files. Use it whenever the answer may be in these documents."
)
_WEB_SEARCH = _searching("Search the web for current information. Returns pages with their URLs.")
