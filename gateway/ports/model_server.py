"""A server that runs models: what is asked of it, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from gateway.errors import GatewayError

__all__ = ["Answer", "ModelServer", "Quiet", "ServedModel", "ServerKind"]

ServerKind = Literal["chat", "embedding", "rerank"]
Headers = Sequence[tuple[bytes, bytes]]


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model as its server lists it."""

    name: str
    context_length: int | None = None
    """In tokens, where the server says it."""


class Quiet:
    """Stands for "nothing has come for a while" between two blocks of a stream."""


class Answer(Protocol):
    """A model server's answer to one request, from its head on.

    It owns a connection until it is read to its end or closed. Every method raises
    :class:`~gateway.errors.UpstreamError` or a subclass when the server breaks off, sends
    something that isn't HTTP, or one of the four time limits runs out. Cancelling the task that
    awaits one of them is safe; :meth:`close` then stops the server's work at once.
    """

    status: int
    content_type: str
    """Without parameters, lower case: ``application/json``."""

    def header(self, name: bytes) -> bytes | None:
        """One header's value, by lower-case name."""

    async def read(self) -> list[bytes]:
        """The whole body, in the blocks it came in; the connection is free afterwards."""

    async def next_block(self) -> bytes | type[Quiet] | None:
        """The next bytes of a stream as they came; ``None`` at its end.

        ``Quiet`` says that the time set as the heartbeat went by without any.
        """

    def close(self) -> None:
        """Done with it. An answer that isn't at its end is broken off, which tells the server
        that nobody waits any longer. Never raises; may be called more than once.
        """


class ModelServer(Protocol):
    """One server that runs models behind an OpenAI-shaped API, such as a vLLM."""

    name: str
    """For people: the URL without credentials."""
    host: str
    port: int
    provider: str
    """``gen_ai.provider.name`` of spans and metrics."""

    async def send(self, path: str, body: bytes, headers: Headers = ()) -> Answer:
        """POST ``body`` (JSON) to ``path`` (from the server's root, ``/v1/…``).

        Returns when the head of a stream, or the whole of another answer, is there. Raises
        :class:`~gateway.errors.UpstreamUnreachable` when nothing was sent, so that another
        server may be tried; other :class:`~gateway.errors.UpstreamError` subclasses otherwise.
        A status that isn't 2xx is an answer, not an exception.
        """

    async def refusal(self, path: str, answer: Answer) -> GatewayError:
        """The error that a not-2xx answer of ``path`` means, in OpenAI's shape. Closes it."""

    def event_error(self, data: bytes) -> GatewayError | None:
        """The error that a stream's event carries, if it is one."""

    def conform(self, body: bytes) -> bytes:
        """An answer's JSON without what OpenAI's published schemas don't allow."""

    def forwards(self, header: bytes) -> bool:
        """Whether a caller's header (lower-case name) may travel to this server."""

    async def list_models(self) -> list[ServedModel]:
        """The models that run there now. Raises ``UpstreamError`` when it can't say."""

    async def find_kind(self) -> ServerKind:
        """What its models are for, found out without running one."""

    async def embedding_dimension(self, model: str) -> int:
        """How long this model's vectors are, asked of the model itself."""

    async def queue_length(self) -> int | None:
        """How many requests it has, running and waiting, whoever sent them; ``None`` where it
        doesn't tell. Raises ``UpstreamError`` when it can't be asked.
        """

    @property
    def open_connections(self) -> int:
        """How many sockets are open to it, idle ones included."""

    @property
    def busy_connections(self) -> int:
        """How many of them carry a request now."""

    async def aclose(self) -> None:
        """Close every connection."""
