"""What a text completion is to the relay and to a trace."""

from __future__ import annotations

from gateway.chat.service import generation_attributes
from gateway.completions.schemas import CompletionRequest
from gateway.relay.operation import Operation

COMPLETION = Operation(
    name="text_completion",
    path="/v1/completions",
    request=CompletionRequest,
    kinds=("chat", "moderation"),
    attributes=generation_attributes,
    asks_usage=True,
    conforms=True,
)
