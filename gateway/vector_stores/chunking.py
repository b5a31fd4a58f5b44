"""What a ``chunking_strategy`` comes to."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.embeddings.embedder import room_for_chunks
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.routing.catalog import AllowedModels, Catalog
from gateway.vector_stores.schemas import (
    AutoChunking,
    ChunkingStrategy,
    ContextualSizes,
    StaticChunking,
    StaticSizes,
)

__all__ = ["DEFAULT_CONTEXT_PROMPT", "ChunkingResolver"]

DOCUMENT, CHUNK = "{{WHOLE_DOCUMENT}}", "{{CHUNK_CONTENT}}"
DEFAULT_CONTEXT_PROMPT = (
    f"<document>\n{DOCUMENT}\n</document>\n"
    f"This chunk is a part of the document above:\n<chunk>\n{CHUNK}\n</chunk>\n"
    "Say in one or two short sentences where in the document the chunk stands and what it is "
    "about, so that a search finds it. Answer with these sentences only."
)
_SMALLEST = 100
"""OpenAI's least ``max_chunk_size_tokens``."""
_CALL_SECONDS = 120
_CALLS_AT_ONCE = 4


class ChunkingResolver:
    """Fills in what a strategy leaves out, so that the answer to "how was this cut?" is stored."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def resolve(
        self,
        given: ChunkingStrategy | None,
        param: str = "chunking_strategy",
        allowed: AllowedModels = None,
    ) -> dict[str, Any] | None:
        """The strategy with every value in it, as OpenAI's and LlamaStack's objects show it.

        ``None`` for ``auto`` and for none at all: see :meth:`automatic`. Raises
        ``InvalidRequest`` that names the parameter below ``param``.
        """
        if given is None or isinstance(given, AutoChunking):
            return None
        if isinstance(given, StaticChunking):
            sizes = given.static
            if 2 * sizes.chunk_overlap_tokens > sizes.max_chunk_size_tokens:
                raise InvalidRequest(
                    "chunk_overlap_tokens must be less than or equal to half of "
                    f"max_chunk_size_tokens, but {sizes.chunk_overlap_tokens} is more than half "
                    f"of {sizes.max_chunk_size_tokens}.",
                    param=f"{param}.static.chunk_overlap_tokens",
                    code="invalid_value",
                )
            return _shown("static", sizes)
        wanted, param = given.contextual, f"{param}.contextual"
        return _shown("contextual", self._contextual(wanted, param, allowed))

    def automatic(self, embedding_model: str) -> dict[str, Any]:
        """Static chunks of 800 tokens, half of them overlap, as at OpenAI; smaller ones where the
        embedding model takes less.
        """
        try:
            room = room_for_chunks(self._catalog.get(embedding_model))
        except ModelNotFound:  # not there at the moment; what it takes is found out when it is
            room = None
        usual = StaticSizes()
        if room is None or room >= usual.max_chunk_size_tokens:
            return _shown("static", usual)
        size = max(room, _SMALLEST)
        return _shown(
            "static", StaticSizes(max_chunk_size_tokens=size, chunk_overlap_tokens=size // 2)
        )

    def _contextual(
        self, sizes: ContextualSizes, param: str, allowed: AllowedModels
    ) -> ContextualSizes:
        if sizes.chunk_overlap_tokens >= sizes.max_chunk_size_tokens:
            raise InvalidRequest(
                "chunk_overlap_tokens must be less than max_chunk_size_tokens, but "
                f"{sizes.chunk_overlap_tokens} is not less than {sizes.max_chunk_size_tokens}.",
                param=f"{param}.chunk_overlap_tokens",
                code="invalid_value",
            )
        prompt = sizes.context_prompt or DEFAULT_CONTEXT_PROMPT
        # The document comes first: what prompts have in common is then read once by the model.
        if not -1 < prompt.find(DOCUMENT) < prompt.find(CHUNK):
            raise InvalidRequest(
                f"context_prompt must contain {DOCUMENT} and, after it, {CHUNK}.",
                param=f"{param}.context_prompt",
                code="invalid_value",
            )
        return msgspec.structs.replace(
            sizes,
            model_id=self._chat_model(sizes.model_id, f"{param}.model_id", allowed),
            context_prompt=prompt,
            timeout_seconds=sizes.timeout_seconds or _CALL_SECONDS,
            max_concurrency=sizes.max_concurrency or _CALLS_AT_ONCE,
        )

    def _chat_model(self, name: str | None, param: str, allowed: AllowedModels) -> str:
        """The id of the chat model of this name, or of the only one there is."""
        if name is not None:
            try:
                return self._catalog.find(name, ("chat",), allowed).id
            except GatewayError as error:
                raise InvalidRequest(error.message, param=param, code=error.code) from None
        known = [model.id for model in self._catalog.models(allowed) if model.kind == "chat"]
        if len(known) != 1:
            raise InvalidRequest(
                "A contextual chunking_strategy needs the model_id of a chat model.",
                param=param,
                code="missing_required_parameter",
            )
        return known[0]


def _shown(kind: str, sizes: StaticSizes | ContextualSizes) -> dict[str, Any]:
    return {"type": kind, kind: msgspec.to_builtins(sizes)}
