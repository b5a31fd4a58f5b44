"""An upload in parts as OpenAI's clients know it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.files.schemas import ExpiresAfter, FileObject, Purpose

__all__ = ["PART_FORM", "CompleteUpload", "CreateUpload", "PartObject", "UploadObject"]


PART_FORM = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary"}},
}
"""The form of a part as the OpenAPI document has it."""


class CreateUpload(Struct, frozen=True, kw_only=True):
    bytes: Annotated[int, Meta(ge=1)]
    """Of the whole file."""
    filename: Annotated[str, Meta(min_length=1)]
    mime_type: str
    purpose: Purpose
    expires_after: ExpiresAfter | None = None
    """For the file that it becomes."""


class CompleteUpload(Struct, frozen=True, kw_only=True):
    part_ids: Annotated[list[str], Meta(min_length=1, max_length=10_000)]
    """In the order in which they make up the file."""
    md5: str | None = None
    """In hexadecimal, of the whole file."""


class UploadObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None = None
    """Once it is completed."""


class PartObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
