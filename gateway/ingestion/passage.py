"""A chunk as it is embedded, indexed and stored."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from msgspec import Struct

from gateway.ingestion.repository import Claim
from gateway.ports import Chunk, IndexedChunk

__all__ = ["Passage"]


class Passage(Struct, frozen=True, kw_only=True):
    """A chunk at its position in the file, and what a model wrote about its place there."""

    chunk: Chunk
    position: int
    context: str | None = None

    @property
    def text(self) -> str:
        """What is embedded and what words are searched in: the context, the path of headings, and
        the chunk's own text, each a paragraph.
        """
        parts = (self.context, "\n".join(self.chunk.headings), self.chunk.text)
        return "\n\n".join(part for part in parts if part)

    def digest(self, embedding_model: str) -> str:
        """Of the vector: the same model and text give the same one."""
        return sha256(f"{embedding_model}\0{self.text}".encode()).hexdigest()

    def id(self, claim: Claim) -> str:
        """The same in every attempt, so that a second one writes over what the first one wrote."""
        return f"{claim.attachment_id}-{self.position}"

    def indexed(self, claim: Claim, vector: Any) -> IndexedChunk:
        return IndexedChunk(
            id=self.id(claim), attachment_id=claim.attachment_id, text=self.text, vector=vector
        )

    def row(self, claim: Claim, digest: str) -> dict[str, Any]:
        """The columns of its row."""
        return {
            "id": self.id(claim),
            "project": claim.project,
            "store_id": claim.index.store_id,
            "attachment_id": claim.attachment_id,
            "position": self.position,
            "text": self.chunk.text,
            "digest": digest,
            "tokens": self.chunk.tokens,
            "headings": self.chunk.headings,
            "pages": self.chunk.pages,
            "start": self.chunk.start,
            "end": self.chunk.end,
            "context": self.context,
            "metadata_": {},
        }
