"""What an embedding request is to the relay and to a trace."""

from __future__ import annotations

from typing import Any

from gateway.embeddings.schemas import EmbeddingRequest
from gateway.observability import semconv
from gateway.relay.operation import Operation


def embedding_attributes(request: EmbeddingRequest) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if request.encoding_format is not None:
        attributes[semconv.REQUEST_ENCODING_FORMATS] = (request.encoding_format,)
    if request.dimensions is not None:
        attributes[semconv.EMBEDDINGS_DIMENSIONS] = request.dimensions
    return attributes


EMBEDDINGS = Operation(
    name="embeddings",
    path="/v1/embeddings",
    request=EmbeddingRequest,
    kinds=("embedding",),
    attributes=embedding_attributes,
    large_answers=True,
)
