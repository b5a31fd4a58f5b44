"""Where LlamaStack and OpenAI differ for a client, and which of the two ways is taken.

OpenAI's way is the default; ``server.profile: llamastack`` gives LlamaStack's, so that a team can
rehearse the switch. Every difference is a field here and a row in ``docs/profiles.md``.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from gateway.database.paging import Order
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound

__all__ = ["Profile", "profile_of"]


class Profile(Struct, frozen=True, kw_only=True):
    """One way of being compatible."""

    prefixed_model_ids: bool
    """Models are listed as ``provider/model``. Both forms are understood in any case."""
    owned_by: str | None
    """A model's ``owned_by``; ``None`` for the name of what serves it."""
    unknown_provider: type[GatewayError]
    """The error for ``GET /v1/providers/{id}`` with an id that isn't there."""
    malformed_conversation_id: type[GatewayError]
    """The error where ``/v1/conversations/{id}`` has something that can't be an id of one."""
    stores_completions: bool
    """Chat completions are stored unless the request says ``store: false``."""
    completions_order: Order
    """How stored chat completions are listed where the request doesn't say."""
    unknown_in_stores: type[GatewayError]
    """The error for a vector store, a file, a file in a store or a batch that isn't there."""
    attach_waits: bool
    """Attaching a file, and making a store of files, answers when the files are done."""
    store_metadata: bool
    """A vector store's ``metadata`` also holds its provider, id, embedding model and dimension,
    which can't be changed there."""
    dashed_store_ids: bool
    """Ids of stores and batches end in a UUID with its dashes."""
    batch_prefix: str
    """What the id of a batch of files begins with."""
    empty_cursor: str | None
    """``first_id`` and ``last_id`` of an empty list of files, stores or their files, items, or
    stored chat completions."""
    refuses_late_cancel: bool
    """Cancelling a batch of files that is over is an error, not the batch as it is."""
    chunk_in_attributes: bool
    """A search result's ``attributes`` also say which chunk of which document it is."""
    malformed_file_id: type[GatewayError]
    """The error where ``/v1/files/{id}`` has something that can't be a file's id."""
    batch_file_seconds: int | None
    """How long files with the purpose ``batch`` stay that were made without ``expires_after``."""
    unknown_tool_group: type[GatewayError]
    """The error for a tool group that isn't there."""
    file_status_details: str | UnsetType
    """A file's ``status_details``."""
    mcp_approval: bool
    """A tool of an MCP server is run only once the caller has approved the call, where the
    request doesn't say (``require_approval``)."""
    late_cancel: type[GatewayError]
    """The error for cancelling a response that is over."""
    unknown_shield: type[GatewayError]
    """The error for a shield that isn't there."""
    batch_body_as_text: bool
    """``response.body`` in a batch's files is a string with the JSON, not the JSON itself."""


_OPENAI = Profile(
    prefixed_model_ids=False,
    owned_by=None,
    unknown_provider=NotFound,
    malformed_conversation_id=NotFound,
    stores_completions=False,
    completions_order="asc",
    unknown_in_stores=NotFound,
    attach_waits=False,
    store_metadata=False,
    dashed_store_ids=False,
    batch_prefix="vsfb_",
    empty_cursor=None,
    refuses_late_cancel=False,
    chunk_in_attributes=False,
    malformed_file_id=NotFound,
    batch_file_seconds=30 * 24 * 3600,
    unknown_tool_group=NotFound,
    file_status_details=UNSET,
    mcp_approval=True,
    late_cancel=InvalidRequest,
    unknown_shield=NotFound,
    batch_body_as_text=False,
)
_LLAMASTACK = Profile(
    prefixed_model_ids=True,
    owned_by="llama_stack",
    unknown_provider=InvalidRequest,
    malformed_conversation_id=InvalidRequest,
    stores_completions=True,
    completions_order="desc",
    unknown_in_stores=InvalidRequest,
    attach_waits=True,
    store_metadata=True,
    dashed_store_ids=True,
    batch_prefix="batch_",
    empty_cursor="",
    refuses_late_cancel=True,
    chunk_in_attributes=True,
    malformed_file_id=InvalidRequest,
    batch_file_seconds=None,
    unknown_tool_group=InvalidRequest,
    file_status_details="",
    mcp_approval=False,
    late_cancel=Conflict,
    unknown_shield=InvalidRequest,
    batch_body_as_text=True,
)


def profile_of(name: Literal["openai", "llamastack"]) -> Profile:
    return _LLAMASTACK if name == "llamastack" else _OPENAI
