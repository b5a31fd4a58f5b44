"""Writing and reading the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from gateway.audit.entry import AuditEntry, entry_of
from gateway.audit.repository import AuditFilter, AuditRepository
from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.paging import PageRequest
from gateway.database.tables import AuditRow
from gateway.errors import PermissionDenied
from gateway.http.export import csv_lines
from gateway.http.pages import Page, page_of
from gateway.identity.principal import Principal, is_admin

__all__ = ["AuditLog", "visible"]

_EXPORTED_AT_ONCE = 500
_COLUMNS = tuple(name for name in AuditEntry.__struct_fields__ if name != "object")


class AuditLog:
    def __init__(self, database: Database, keep_seconds: int | None) -> None:
        self._database = database
        self._keep_seconds = keep_seconds

    async def write(self, row: AuditRow) -> None:
        """Durably, when this returns. Raises ``UpstreamUnavailable``.

        Who changes the database itself can add the row in the same transaction instead, with
        ``AuditRepository``.
        """
        async with self._database.begin() as session:
            AuditRepository(session).add(row)

    async def page(
        self, principal: Principal, chosen: AuditFilter, page: PageRequest
    ) -> Page[AuditEntry]:
        """Raises ``PermissionDenied``."""
        chosen = visible(principal, chosen)
        async with self._database.read() as session:
            rows = await AuditRepository(session).page(chosen, page)
        return page_of(rows, page, entry_of, empty=None)

    async def entries(self, chosen: AuditFilter) -> AsyncIterator[list[AuditEntry]]:
        """All of them, the oldest first, some at a time."""
        after: str | None = None
        while True:
            page = PageRequest(limit=_EXPORTED_AT_ONCE, order="asc", after=after)
            async with self._database.read() as session:
                rows = await AuditRepository(session).page(chosen, page)
            some = [entry_of(row) for row in rows[:_EXPORTED_AT_ONCE]]
            if some:
                yield some
            if len(rows) <= _EXPORTED_AT_ONCE:
                return
            after = some[-1].id

    async def export(self, chosen: AuditFilter, form: str) -> AsyncIterator[bytes]:
        """As ``csv`` or ``jsonl``."""
        if form == "csv":
            yield csv_lines([_COLUMNS])
        async for some in self.entries(chosen):
            if form == "csv":
                yield csv_lines([[getattr(one, name) for name in _COLUMNS] for one in some])
            else:
                yield b"".join(msgspec.json.encode(one) + b"\n" for one in some)

    async def forget(self) -> int:
        """What is too old; for the reaper."""
        if self._keep_seconds is None:
            return 0
        async with self._database.begin() as session:
            return await AuditRepository(session).forget(now() - self._keep_seconds)


def visible(principal: Principal, chosen: AuditFilter) -> AuditFilter:
    """The part of what is chosen that the caller may see. Raises ``PermissionDenied``."""
    if is_admin(principal):
        return chosen
    if chosen.project not in (None, principal.project):
        raise PermissionDenied(
            "Only the scope 'admin' sees other projects.",
            param="project_id",
            code="insufficient_scope",
        )
    return msgspec.structs.replace(chosen, project=principal.project)
