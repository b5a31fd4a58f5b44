"""What keeps a chat completion while it is relayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.chat.schemas import ChatCompletionRequest
from gateway.errors import InvalidRequest
from gateway.http.requests import principal_of_scope
from gateway.http.validation import NOT_JSON, check_depth
from gateway.stored_completions.assembly import Assembly
from gateway.stored_completions.writer import CompletionWriter, FinishedCompletion, Origin
from gateway.vector_stores.properties import check_metadata

if TYPE_CHECKING:
    from gateway.http.asgi import Scope
    from gateway.identity.principal import Principal
    from gateway.relay.recording import Record

__all__ = ["MAX_KEPT_BYTES", "CompletionRecorder"]

MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Of a request and its answer together; what is larger isn't kept."""
_MAX_ID = 80


class _Request(Struct, frozen=True):
    messages: list[dict[str, Any]]


class CompletionRecorder:
    """A :class:`~gateway.relay.recording.Recorder` for chat completions.

    ``unasked`` says whether those are kept too whose request doesn't say.
    """

    def __init__(self, writer: CompletionWriter, *, unasked: bool) -> None:
        self._writer = writer
        self.when: frozenset[bool | None] = frozenset({True, None} if unasked else {True})

    def begin(self, scope: Scope, request: ChatCompletionRequest, body: bytes) -> Record:
        """Raises ``InvalidRequest`` for metadata that can't be kept, where keeping was asked for;
        who didn't ask has it left out.
        """
        try:
            metadata = check_metadata(request.metadata)
        except InvalidRequest:
            if request.store:
                raise
            metadata = {}
        client = scope.get("client")
        origin = Origin(
            path=scope["path"],
            request_id=scope["state"]["exchange"].request_id.decode(),
            address=client[0] if client else None,
        )
        principal = principal_of_scope(scope)
        return _CompletionRecord(self._writer, principal, origin, request.model, metadata, body)


class _CompletionRecord:
    """One completion as it passes."""

    def __init__(
        self,
        writer: CompletionWriter,
        principal: Principal,
        origin: Origin,
        model: str,
        metadata: dict[str, str],
        body: bytes,
    ) -> None:
        self._writer = writer
        self._principal = principal
        self._origin = origin
        self._model = model
        self._metadata = metadata
        self._request = body
        self._whole: bytes | None = None
        self._assembly = Assembly()
        self._dropped: str | None = None
        self._finished = False
        self._check_size()

    def answer(self, body: bytes) -> None:
        self._whole = body
        self._check_size()

    def event(self, data: bytes) -> None:
        if self._dropped is None:
            try:
                self._assembly.add(data)
            except NOT_JSON:
                self._drop("unreadable")
            else:
                self._check_size()

    async def finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        finished = self._read() if self._dropped is None else None
        if finished is not None:
            await self._writer.keep(finished)
        else:
            self._writer.count(self._dropped or "unreadable")

    @property
    def _size(self) -> int:
        return len(self._request) + len(self._whole or b"") + self._assembly.size

    def _check_size(self) -> None:
        if self._size > MAX_KEPT_BYTES:
            self._drop("too_large")

    def _drop(self, why: str) -> None:
        self._dropped = why
        self._request = b""
        self._whole = None
        self._assembly = Assembly()

    def _read(self) -> FinishedCompletion | None:
        """``None`` where it can't be kept as it is."""
        try:
            messages = msgspec.json.decode(self._request, type=_Request).messages
            completion = (
                self._assembly.completion(self._model)
                if self._whole is None
                else msgspec.json.decode(self._whole, type=dict[str, Any])
            )
            check_depth([messages, completion], "messages")
        except (*NOT_JSON, InvalidRequest):
            return None
        name = completion.get("id")
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_ID or "\x00" in name:
            return None
        return FinishedCompletion(
            principal=self._principal,
            origin=self._origin,
            model=self._model,
            completion=completion,
            messages=messages,
            metadata=self._metadata,
            size=self._size,
        )
