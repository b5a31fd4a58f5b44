"""What counting tokens is to the relay and to a trace."""

from __future__ import annotations

from gateway.relay.operation import Operation
from gateway.tokenize.schemas import DetokenizeRequest, TokenizeRequest

TOKENIZE = Operation(
    name="tokenize",
    path="/tokenize",
    request=TokenizeRequest,
    kinds=(),
)

DETOKENIZE = Operation(
    name="detokenize",
    path="/detokenize",
    request=DetokenizeRequest,
    kinds=(),
)
