"""Vectors for the gateway's own needs: of chunks and of queries."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.embeddings.service import EMBEDDINGS
from gateway.errors import GatewayError, InvalidRequest, UpstreamError
from gateway.http.validation import NOT_JSON
from gateway.observability.activity import Activity
from gateway.relay.client import ModelClient
from gateway.routing.balancer import choose
from gateway.routing.catalog import AllowedModels, Catalog, Model
from gateway.settings import EmbeddingSettings

__all__ = ["Embedder", "room_for_chunks"]


_CHUNK_SHARE = 0.6
"""Of a model's context for a chunk's own text in OpenAI's tokens: headings come on top, and another
vocabulary may need half as many tokens again for the same text."""


def room_for_chunks(model: Model) -> int | None:
    """The largest chunk, in tokens of ``cl100k_base``, that this model most likely takes whole;
    ``None`` where its server doesn't say how much it takes.
    """
    return None if model.context_length is None else int(model.context_length * _CHUNK_SHARE)


class _Embedding(Struct, frozen=True):
    embedding: str
    index: int


class _Embeddings(Struct, frozen=True):
    data: list[_Embedding]


_answers = msgspec.json.Decoder(_Embeddings)


class Embedder:
    """Embeds with models of the catalog, in batches and with bounded concurrency."""

    def __init__(self, catalog: Catalog, client: ModelClient, settings: EmbeddingSettings) -> None:
        self._catalog = catalog
        self._client = client
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.concurrency)

    def model(self, name: str | None, allowed: AllowedModels = None) -> Model:
        """The model of this name, or the default one.

        The configured default is everybody's; any other must be one that the caller may use.

        Raises ``InvalidRequest`` where none is named and none is the obvious one,
        ``ModelNotFound`` and ``WrongKind``.
        """
        if name:
            return self._catalog.find(name, ("embedding",), allowed)
        if self._settings.default_model is not None:
            return self._catalog.find(self._settings.default_model, ("embedding",))
        known = [model for model in self._catalog.models(allowed) if model.kind == "embedding"]
        if len(known) == 1:
            return known[0]
        which = "several embedding models" if known else "no embedding model"
        raise InvalidRequest(
            f"embedding_model is required: the gateway knows {which}, and "
            "embedding.default_model is not configured.",
            param="embedding_model",
            code="missing_required_parameter",
        )

    async def dimension(self, model: Model) -> int:
        """How long this model's vectors are. Raises ``UpstreamError`` when no backend tells."""
        if model.dimension is not None:
            return model.dimension
        backend = choose(model, (), None) or model.backends[0]
        return await backend.server.embedding_dimension(backend.model)

    async def embed(
        self, activity: Activity, model: str, texts: Sequence[str], *, cut: bool = False
    ) -> list[Sequence[float]]:
        """A vector for each text, in their order.

        With ``cut``, of a text that is longer than the model takes only the beginning counts.
        Raises ``ModelNotFound``, ``InvalidRequest`` (without ``cut``, such a text) and
        ``UpstreamError``. One failing batch cancels the others.
        """
        size = self._settings.batch_size
        batches = [texts[at : at + size] for at in range(0, len(texts), size)]
        if len(batches) <= 1:
            return await self._embed(activity, model, texts, cut=cut) if texts else []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._embed(activity, model, one, cut=cut)) for one in batches
                ]
        except* GatewayError as failed:
            raise failed.exceptions[0] from None
        return [vector for task in tasks for vector in task.result()]

    async def _embed(
        self, activity: Activity, model: str, texts: Sequence[str], *, cut: bool
    ) -> list[Sequence[float]]:
        request: dict[str, Any] = {
            "model": model,
            "input": list(texts),
            "encoding_format": "base64",
        }
        if cut:
            request["truncate_prompt_tokens"] = -1  # vLLM's word for "to what the model takes"
        async with self._turns:
            body = await self._client.ask(EMBEDDINGS, activity, request)
        try:
            answer = _answers.decode(body)
            vectors: list[Sequence[float]] = [
                array("f", base64.b64decode(one.embedding))
                for one in sorted(answer.data, key=lambda one: one.index)
            ]
        except (*NOT_JSON, ValueError) as error:
            raise UpstreamError(f"The model server's answer is no embeddings: {error}") from None
        if len(vectors) != len(texts):
            raise UpstreamError(
                f"The model server made {len(vectors)} vectors of {len(texts)} texts."
            )
        return vectors
