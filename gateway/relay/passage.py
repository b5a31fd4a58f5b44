"""An answer that has begun and has to get to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec import Raw

    from gateway.errors import GatewayError
    from gateway.http.asgi import Send
    from gateway.observability.call import ModelCall
    from gateway.ports import Answer, ModelServer
    from gateway.relay.operation import Operation, Tee
    from gateway.relay.recording import Record


class Passage:
    """What is needed to pass an answer on, streamed or not.

    ``rename`` is the name that the caller knows the model by, as JSON, where it differs from the
    server's.
    """

    __slots__ = (
        "answer",
        "call",
        "failure",
        "operation",
        "record",
        "rename",
        "send",
        "server",
        "tee",
    )

    def __init__(
        self,
        operation: Operation[Any],
        server: ModelServer,
        answer: Answer,
        call: ModelCall,
        send: Send,
        rename: Raw | None,
        tee: Tee | None,
        record: Record | None = None,
    ) -> None:
        self.operation = operation
        self.server = server
        self.answer = answer
        self.call = call
        self.send = send
        self.rename = rename
        self.tee = tee
        self.record = record
        self.failure: GatewayError | None = None
        """What a stream broke off with after it had begun."""
