"""The tools that a request offers to the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.vector_stores.search_schemas import RankingOptions, SearchMode

__all__ = [
    "FileSearchTool",
    "FunctionTool",
    "McpTool",
    "Tool",
    "ToolFilter",
    "WebSearchTool",
    "has_secrets",
    "shown_tool",
]

ToolName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$(?!\n)")]
Label = Annotated[str, Meta(min_length=1, max_length=128)]


class FunctionTool(Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A function that the caller runs itself."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FileSearchTool(Struct, frozen=True, kw_only=True, tag_field="type", tag="file_search"):
    """A search in vector stores. ``search_mode`` is LlamaStack's."""

    vector_store_ids: Annotated[list[str], Meta(min_length=1, max_length=64)]
    filters: dict[str, Any] | None = None
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    ranking_options: RankingOptions | None = None
    search_mode: SearchMode | None = None


class ToolFilter(Struct, frozen=True, kw_only=True):
    """Tools by name, or those that only read (MCP's ``readOnlyHint``)."""

    tool_names: list[str] | None = None
    read_only: bool | None = None


class ApprovalFilter(Struct, frozen=True, kw_only=True):
    always: ToolFilter | list[str] | None = None
    never: ToolFilter | list[str] | None = None


class McpTool(Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp"):
    """The tools of a server that speaks MCP, by its URL or as a configured connector."""

    server_label: Label
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    authorization: str | None = None
    headers: dict[str, str] | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None


class WebFilters(Struct, frozen=True, kw_only=True):
    allowed_domains: Annotated[list[str], Meta(max_length=100)] | None = None


class UserLocation(Struct, frozen=True, kw_only=True):
    country: str | None = None


class _WebSearch(Struct, frozen=True, kw_only=True, tag_field="type"):
    filters: WebFilters | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: UserLocation | None = None


class WebSearchTool(_WebSearch, frozen=True, kw_only=True, tag="web_search"):
    """A search in the web."""


class DatedWebSearchTool(_WebSearch, frozen=True, kw_only=True, tag="web_search_2025_08_26"):
    """The same."""


class WebSearchPreviewTool(_WebSearch, frozen=True, kw_only=True, tag="web_search_preview"):
    """The same."""


class DatedWebSearchPreviewTool(
    _WebSearch, frozen=True, kw_only=True, tag="web_search_preview_2025_03_11"
):
    """The same."""


AnyWebSearchTool = (
    WebSearchTool | DatedWebSearchTool | WebSearchPreviewTool | DatedWebSearchPreviewTool
)
Tool = FunctionTool | FileSearchTool | McpTool | AnyWebSearchTool


def shown_tool(tool: Tool) -> dict[str, Any]:
    """A tool as a response shows it: without what the caller uses to prove who it is."""
    shown: dict[str, Any] = msgspec.to_builtins(tool)
    if isinstance(tool, McpTool):
        shown.pop("authorization")
        shown["headers"] = None
    elif isinstance(tool, FunctionTool):
        return shown
    return {name: value for name, value in shown.items() if value is not None}


def has_secrets(tool: Tool) -> bool:
    """Whether it carries what may not be stored."""
    return isinstance(tool, McpTool) and bool(tool.authorization or tool.headers)
