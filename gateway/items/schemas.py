"""Every kind of item, as far as it is checked on its way in.

Items stay dictionaries, so that what isn't named here is kept as it came.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

__all__ = ["ITEM_PREFIXES", "SOURCES", "InputFile", "InputImage", "InputText", "Item"]

Text = str
Name = Annotated[str, Meta(min_length=1, max_length=256)]
ItemStatus = Literal["in_progress", "completed", "incomplete"] | None


class Part(Struct, frozen=True, kw_only=True, tag_field="type"):
    """A part of a message's content."""


class InputText(Part, frozen=True, kw_only=True, tag="input_text"):
    text: str


class PlainText(Part, frozen=True, kw_only=True, tag="text"):
    text: str


class InputImage(Part, frozen=True, kw_only=True, tag="input_image"):
    """Either ``image_url`` (http, https or data) or ``file_id``."""

    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None


class InputFile(Part, frozen=True, kw_only=True, tag="input_file"):
    """One of ``file_id``, ``file_url`` and ``file_data`` (base64, or a data URL)."""

    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Audio(Struct, frozen=True, kw_only=True):
    data: str
    format: str


class InputAudio(Part, frozen=True, kw_only=True, tag="input_audio"):
    input_audio: Audio


class OutputText(Part, frozen=True, kw_only=True, tag="output_text"):
    text: str
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class Refusal(Part, frozen=True, kw_only=True, tag="refusal"):
    refusal: str


class SummaryText(Part, frozen=True, kw_only=True, tag="summary_text"):
    text: str


class ReasoningText(Part, frozen=True, kw_only=True, tag="reasoning_text"):
    text: str


InputPart = InputText | PlainText | InputImage | InputFile | InputAudio
MessagePart = InputPart | OutputText | Refusal | SummaryText | ReasoningText
Role = Literal["user", "assistant", "system", "developer"]


class Entry(Struct, frozen=True, kw_only=True, tag_field="type"):
    """An item. Its id is the caller's, or is given to it."""

    id: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    status: str | None = None


class Message(Entry, frozen=True, kw_only=True, tag="message"):
    role: Role
    content: str | list[MessagePart]


class FunctionCall(Entry, frozen=True, kw_only=True, tag="function_call"):
    call_id: Name
    name: Name
    arguments: str


class FunctionCallOutput(Entry, frozen=True, kw_only=True, tag="function_call_output"):
    call_id: Name
    output: str | list[InputPart]


class Reasoning(Entry, frozen=True, kw_only=True, tag="reasoning"):
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class FileSearchCall(Entry, frozen=True, kw_only=True, tag="file_search_call"):
    queries: list[str] = []
    results: list[dict[str, Any]] | None = None


class WebSearchCall(Entry, frozen=True, kw_only=True, tag="web_search_call"):
    action: dict[str, Any] | None = None


class McpListTools(Entry, frozen=True, kw_only=True, tag="mcp_list_tools"):
    server_label: Name
    tools: list[dict[str, Any]] = []
    error: Any = None


class McpCall(Entry, frozen=True, kw_only=True, tag="mcp_call"):
    server_label: Name
    name: Name
    arguments: str
    output: str | None = None
    error: Any = None
    approval_request_id: str | None = None


class McpApprovalRequest(Entry, frozen=True, kw_only=True, tag="mcp_approval_request"):
    server_label: Name
    name: Name
    arguments: str


class McpApprovalResponse(Entry, frozen=True, kw_only=True, tag="mcp_approval_response"):
    approval_request_id: Name
    approve: bool
    reason: str | None = None


class Compaction(Entry, frozen=True, kw_only=True, tag="compaction"):
    """A summary of earlier items, opaque to callers."""

    encrypted_content: str


class ItemReference(Entry, frozen=True, kw_only=True, tag="item_reference"):
    """Another item of the same project, by its ``id``."""


Item = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | Reasoning
    | FileSearchCall
    | WebSearchCall
    | McpListTools
    | McpCall
    | McpApprovalRequest
    | McpApprovalResponse
    | Compaction
    | ItemReference
)

SOURCES = {
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_id", "file_url", "file_data"),
}
"""Where the content of such a part comes from; one of them must be there."""

ITEM_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
    "file_search_call": "fs_",
    "web_search_call": "ws_",
    "mcp_list_tools": "mcpl_",
    "mcp_call": "mcp_",
    "mcp_approval_request": "mcpr_",
    "mcp_approval_response": "mcpa_",
    "compaction": "cmp_",
}
"""What the ids of each kind begin with."""
