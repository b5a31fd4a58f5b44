"""Tool groups, tools, invocations and connectors as LlamaStack's and OGX's clients know them."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Struct, field

__all__ = [
    "Connector",
    "Endpoint",
    "Invocation",
    "InvokeTool",
    "Listing",
    "RagDocument",
    "RagInsert",
    "RagQuery",
    "RagQueryConfig",
    "RagResult",
    "RegisterToolGroup",
    "TextItem",
    "ToolDef",
    "ToolGroup",
    "ToolParameter",
]

MAX_DOCUMENTS = 100

T = TypeVar("T")

Name = Annotated[str, Meta(pattern=r"^[^\x00]{1,256}$")]
StoreName = Annotated[str, Meta(pattern=r"^[^\x00]{1,128}$")]


class Listing(Struct, Generic[T], frozen=True):
    """Without pages, as LlamaStack has it."""

    data: list[T]


class Endpoint(Struct, frozen=True, kw_only=True):
    uri: Annotated[str, Meta(min_length=1, max_length=8192)]


class ToolGroup(Struct, frozen=True, kw_only=True):
    identifier: str
    provider_id: str
    provider_resource_id: str
    type: Literal["tool_group"] = "tool_group"
    mcp_endpoint: Endpoint | None = None
    args: dict[str, Any] | None = None


class RegisterToolGroup(Struct, frozen=True, kw_only=True):
    toolgroup_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,79}$")]
    provider_id: Annotated[str, Meta(pattern=r"^[^\x00]{1,200}$")]
    mcp_endpoint: Endpoint | None = None
    args: dict[str, Any] | None = None


class ToolParameter(Struct, frozen=True, kw_only=True):
    """A property of the input schema, as clients up to 0.2 want it."""

    name: str
    parameter_type: str
    description: str
    required: bool
    default: Any = None


class ToolDef(Struct, frozen=True, kw_only=True):
    """LlamaStack's of today. ``identifier``, ``type``, ``tool_host`` and ``parameters`` are for
    clients up to 0.2, which today's pass by.
    """

    name: str
    toolgroup_id: str | None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    identifier: str
    provider_id: str
    provider_resource_id: str
    type: Literal["tool"] = "tool"
    tool_host: Literal["distribution", "model_context_protocol"]
    parameters: list[ToolParameter]


class InvokeTool(Struct, frozen=True, kw_only=True):
    """``authorization`` is a token for the tool's server, since LlamaStack 0.4."""

    tool_name: Name
    kwargs: dict[str, Any]
    authorization: Annotated[str, Meta(max_length=16_384)] | None = None


class TextItem(Struct, frozen=True, kw_only=True):
    type: Literal["text"] = "text"
    text: str


class Invocation(Struct, frozen=True, kw_only=True):
    """``error_code`` is 0 where the tool did its work."""

    content: str | list[TextItem] | None = None
    error_message: str | None = None
    error_code: int | None = None
    metadata: dict[str, Any] | None = None


class Connector(Struct, frozen=True, kw_only=True):
    connector_type: Literal["mcp"] = "mcp"
    connector_id: str
    url: str
    server_label: str | None = None
    server_name: str | None = None
    server_description: str | None = None
    server_version: str | None = None


class RagQueryConfig(Struct, frozen=True, kw_only=True):
    """As far as it can be followed; a query generator and a ranker are passed by."""

    max_chunks: Annotated[int, Meta(ge=1, le=100)] = 5
    max_tokens_in_context: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    mode: Literal["vector", "keyword", "hybrid"] | None = None
    chunk_template: Annotated[str, Meta(max_length=4000)] = (
        "Result {index}\nContent: {chunk.content}\nMetadata: {metadata}\n"
    )


class RagQuery(Struct, frozen=True, kw_only=True):
    """``vector_db_ids`` is what LlamaStack called them up to 0.3."""

    content: str | dict[str, Any] | list[Any]
    vector_store_ids: Annotated[list[StoreName], Meta(max_length=20)] | None = None
    vector_db_ids: Annotated[list[StoreName], Meta(max_length=20)] | None = None
    query_config: RagQueryConfig | None = None


class RagDocument(Struct, frozen=True, kw_only=True):
    """``content`` is text, text items, a ``data:`` URL, or ``{"uri": …}``."""

    document_id: Annotated[str, Meta(pattern=r"^[^\x00]{1,512}$")]
    content: str | dict[str, Any] | list[Any]
    mime_type: Annotated[str, Meta(pattern=r"^[^\x00]{1,200}$")] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class RagInsert(Struct, frozen=True, kw_only=True):
    documents: Annotated[list[RagDocument], Meta(max_length=MAX_DOCUMENTS)]
    vector_store_id: StoreName | None = None
    vector_db_id: StoreName | None = None
    chunk_size_in_tokens: Annotated[int, Meta(ge=100, le=4096)] = 512


class RagResult(Struct, frozen=True, kw_only=True):
    content: list[TextItem] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
