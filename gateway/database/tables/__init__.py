"""The tables.

::

    files ──< upload_parts >── uploads
      │
      └──< vector_store_files >── vector_stores
             │    │    │                 └──< file_batches
             │    │    └──< file_batch_files >───┘
             │    └──< vector_store_file_attributes
             └──< chunks

    conversations ──< conversation_items        prompts ──< prompt_versions
    responses ──< response_events               batches ──< batch_lines
        └──< response_items
    chat_completions ──< chat_completion_metadata           shields     tool_groups     api_keys

Every row belongs to a project. ``sequence`` is the time of making in microseconds, by which lists
are ordered; every other time is in seconds since the epoch. ``deleted_at`` marks a tombstone: no
reader sees the row any more, and a job removes what hangs on it and then the row.
"""

from gateway.database.tables.api_keys import ApiKeyRow
from gateway.database.tables.base import Base
from gateway.database.tables.batches import BatchLineRow, BatchRow
from gateway.database.tables.chat_completions import ChatCompletionMetadataRow, ChatCompletionRow
from gateway.database.tables.conversations import ConversationItemRow, ConversationRow
from gateway.database.tables.files import FileRow, UploadPartRow, UploadRow
from gateway.database.tables.jobs import JobRow
from gateway.database.tables.prompts import PromptRow, PromptVersionRow
from gateway.database.tables.responses import ResponseEventsRow, ResponseItemRow, ResponseRow
from gateway.database.tables.shields import ShieldRow
from gateway.database.tables.tool_groups import ToolGroupRow
from gateway.database.tables.vector_stores import (
    AttributeRow,
    ChunkRow,
    FileBatchFileRow,
    FileBatchRow,
    VectorStoreFileRow,
    VectorStoreRow,
)

__all__ = [
    "ApiKeyRow",
    "AttributeRow",
    "Base",
    "BatchLineRow",
    "BatchRow",
    "ChatCompletionMetadataRow",
    "ChatCompletionRow",
    "ChunkRow",
    "ConversationItemRow",
    "ConversationRow",
    "FileBatchFileRow",
    "FileBatchRow",
    "FileRow",
    "JobRow",
    "PromptRow",
    "PromptVersionRow",
    "ResponseEventsRow",
    "ResponseItemRow",
    "ResponseRow",
    "ShieldRow",
    "ToolGroupRow",
    "UploadPartRow",
    "UploadRow",
    "VectorStoreFileRow",
    "VectorStoreRow",
]
