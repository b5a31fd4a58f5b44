"""Writing down every request that changes something, before its answer goes out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.audit.entry import audit_row
from gateway.audit.service import AuditLog
from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.http.refusal import refuse
from gateway.http.relayed import RELAY

if TYPE_CHECKING:
    from gateway.database.tables import AuditRow
    from gateway.http.asgi import Message, Scope, Send

__all__ = ["UNCHANGING", "AuditRecording"]

logger = logging.getLogger(__name__)

UNCHANGING = frozenset(
    {
        *("Compactconversation", "Getinputtokencounts", "createModeration", "invokeTool"),
        *("processFile", "queryChunks", "queryRag", "runShield", "searchVectorStore"),
    }
)
"""Operations by POST that leave nothing behind here, by their ids in the contract."""

_MOST_READ = 1024 * 1024
"""Of an answer, to find the id of what was made; longer ones are somebody's content."""


class _Made(Struct):
    """What an answer says of the object that was made, in the words of the different APIs."""

    id: str | None = None
    prompt_id: str | None = None
    identifier: str | None = None
    store: bool | None = None
    response: _Made | None = None


_made = msgspec.json.Decoder(_Made)


class AuditRecording:
    """An entry is in the database when the caller learns of the change.

    Where it can't be written, the answer to a change is a 503: nobody is told of a change that
    the log doesn't have.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def recorded(self, scope: Scope, send: Send) -> Send:
        """What the answer is sent with, of a request by a method that changes things."""
        start: Message | None = None
        refused = False

        async def send_recorded(message: Message) -> None:
            nonlocal start, refused
            if refused:
                return
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                head, start = start, None
                body = message.get("body", b"")
                if not await self._record(scope, head["status"], head["headers"], body):
                    refused = True
                    await refuse(_not_recorded(), send)
                    return
                await send(head)
            await send(message)

        return send_recorded

    async def _record(self, scope: Scope, status: int, headers: Any, body: bytes) -> bool:
        """Whether the answer may go out."""
        row = _row(scope, status, _made_of(headers, body))
        if row is None:
            return True
        try:
            await self._log.write(row)
        except UpstreamError as error:
            logger.error(  # noqa: TRY400  (an outage, which has its own log line)
                "An audit entry could not be written: %s", error.message, extra=_fields(row)
            )
            return status >= 400  # nothing was changed
        return True


def _row(scope: Scope, status: int, made: _Made | None) -> AuditRow | None:
    """``None`` for what isn't a change."""
    state = scope["state"]
    handler = scope.get("route_handler")
    if handler is None:
        # No route, or refused before it was found. Only who is known can be written down: else
        # anybody could fill the log.
        if status != 403 or "principal" not in state:
            return None
        action = "refused"
    elif RELAY in handler.opt or handler.name in UNCHANGING:
        return None
    else:
        action = str(handler.name)
    if made is not None and made.response is not None:
        made = made.response
    if action == "createResponse" and made is not None and made.store is False:
        return None
    exchange = state["exchange"]
    client = scope.get("client")
    return audit_row(
        exchange.principal,
        action,
        status=status,
        object_id=_object_id(scope, status, made),
        method=scope["method"],
        path=scope["path"],
        request_id=exchange.request_id.decode(),
        address=client[0] if client else None,
    )


def _object_id(scope: Scope, status: int, made: _Made | None) -> str | None:
    """The ids in the path, and of what was made below it."""
    parts = [str(part) for part in (scope.get("path_params") or {}).values()]
    if made is not None and status < 400:
        own = made.id or made.prompt_id or made.identifier
        if own is not None and own not in parts:
            parts.append(own)
    return "/".join(parts) or None


def _made_of(headers: Any, body: bytes) -> _Made | None:
    """``None`` where the answer has no such thing."""
    if len(body) > _MOST_READ:
        return None
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    if kind.startswith(b"text/event-stream"):  # its first event has the response
        _, found, body = body.partition(b"data: ")
        body = body.partition(b"\n")[0]
        if not found:
            return None
    elif not kind.startswith(b"application/json"):
        return None
    try:
        return _made.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # another shape: a list, or an id that is a number


def _not_recorded() -> UpstreamUnavailable:
    return UpstreamUnavailable(
        "The request can't be written to the audit log, so its outcome is not told. It may have "
        "been carried out.",
        code="audit_unavailable",
    )


def _fields(row: AuditRow) -> dict[str, object]:
    return {
        "audit_action": row.action,
        "audit_project": row.project,
        "audit_subject": row.subject,
        "audit_key_id": row.key_id,
        "audit_object_id": row.object_id,
        "audit_status": row.status,
        "audit_address": row.address,
        "request_id": row.request_id,
    }
