"""One line of the audit log."""

from __future__ import annotations

import getpass
import socket

from msgspec import Struct

from gateway.database.identifiers import new_id, seconds, sequence
from gateway.database.tables import AuditRow
from gateway.identity.principal import Principal

__all__ = ["AuditEntry", "audit_row", "entry_of", "row_of_command"]

_LONGEST = 500
_ID_LENGTH = 80


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Who changed what, when and from where. No content, and no secret."""

    id: str
    object: str = "audit_log.entry"
    effective_at: int
    """Seconds since the epoch."""
    project_id: str
    subject: str | None
    api_key_id: str | None
    action: str
    """The operation's id in the contract, or a command such as ``keys.create``."""
    object_id: str | None
    """What was changed; with ``/`` between an object and one inside it."""
    status: int
    """The answer's; 0 is a command that was carried out."""
    method: str | None
    path: str | None
    request_id: str | None
    address: str | None


def entry_of(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        effective_at=seconds(row.sequence),
        project_id=row.project,
        subject=row.subject,
        api_key_id=row.key_id,
        action=row.action,
        object_id=row.object_id,
        status=row.status,
        method=row.method,
        path=row.path,
        request_id=row.request_id,
        address=row.address,
    )


def audit_row(
    principal: Principal,
    action: str,
    *,
    status: int,
    object_id: str | None = None,
    method: str | None = None,
    path: str | None = None,
    request_id: str | None = None,
    address: str | None = None,
) -> AuditRow:
    """To be added, in the transaction of the change where that is possible."""
    return AuditRow(
        id=new_id("audit_"),
        sequence=sequence(),
        project=_text(principal.project, 120) or "",
        subject=_text(principal.subject),
        key_id=_text(principal.key_id, _ID_LENGTH),
        action=_text(action, _ID_LENGTH) or "",
        method=_text(method, 10),
        path=_text(path),
        object_id=_text(object_id),
        status=status,
        request_id=_text(request_id, _ID_LENGTH),
        address=_text(address, _ID_LENGTH),
    )


def row_of_command(project: str, action: str, object_id: str) -> AuditRow:
    """Of a command such as ``keys.create``: the one who ran it, at this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an arbitrary user id has no name
        user = "unknown"
    principal = Principal(project=project, subject=f"cli:{user}")
    return audit_row(principal, action, status=0, object_id=object_id, address=socket.gethostname())


def _text(value: str | None, longest: int = _LONGEST) -> str | None:
    """What the database can hold."""
    return None if value is None else value.replace("\x00", "\ufffd")[:longest]
