"""Responses in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.identifiers import now
from gateway.database.paging import PageRequest, page_rows
from gateway.database.tables import ResponseEventsRow, ResponseItemRow, ResponseRow

__all__ = ["ResponseRepository"]

UNFINISHED = ("queued", "in_progress")


class ResponseRepository:
    """Reads and writes in one transaction, the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, row: ResponseRow) -> None:
        self._session.add(row)
        await self._session.flush()  # what refers to it comes after it
        await self._index(row.project, row.id, row.output)

    async def find(
        self, project: str, response_id: str, *, hold: bool = False
    ) -> ResponseRow | None:
        """``hold`` keeps others from changing it until the transaction ends."""
        if "\x00" in response_id:  # which PostgreSQL can't even look for
            return None
        statement = select(ResponseRow).where(
            ResponseRow.project == project, ResponseRow.id == response_id
        )
        if hold:
            statement = statement.with_for_update()
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def chain(self, project: str, response_id: str, most: int) -> list[ResponseRow]:
        """This response and those that it builds on, the oldest first; up to ``most``.

        One that was deleted ends the chain: what is deleted is gone.
        """
        if "\x00" in response_id:
            return []
        row = ResponseRow
        links = (
            select(row.id, row.previous_id, literal(0).label("depth"))
            .where(row.project == project, row.id == response_id)
            .cte("links", recursive=True)
        )
        links = links.union_all(
            select(row.id, row.previous_id, links.c.depth + 1)
            .join(links, row.id == links.c.previous_id)
            .where(row.project == project, links.c.depth < most - 1)
        )
        found = await self._session.execute(
            select(row).join(links, links.c.id == row.id).order_by(links.c.depth.desc())
        )
        return list(found.scalars())

    async def page(self, project: str, model: str | None, page: PageRequest) -> list[ResponseRow]:
        statement = select(ResponseRow).where(ResponseRow.project == project)
        if model is not None and "\x00" in model:
            return []
        if model is not None:
            statement = statement.where(ResponseRow.model == model)
        return await page_rows(self._session, statement, ResponseRow, page, cursor=ResponseRow.id)

    async def delete(self, project: str, response_id: str) -> bool:
        """With its items and events; whether it was there."""
        if "\x00" in response_id:
            return False
        done = await self._session.execute(
            delete(ResponseRow)
            .where(ResponseRow.project == project, ResponseRow.id == response_id)
            .returning(ResponseRow.id)
        )
        return done.first() is not None

    async def find_item(self, project: str, item_id: str) -> dict[str, Any] | None:
        """An item of any response's output."""
        if "\x00" in item_id:
            return None
        found = await self._session.execute(
            select(ResponseRow.output)
            .join(ResponseItemRow, ResponseItemRow.response_id == ResponseRow.id)
            .where(ResponseItemRow.project == project, ResponseItemRow.id == item_id)
        )
        output = found.scalar_one_or_none()
        return next((item for item in output or () if item["id"] == item_id), None)

    # What the worker writes counts only while it is its turn.

    async def claim(self, project: str, response_id: str) -> ResponseRow | None:
        """Take up an unfinished response; the row as it is now, ``None`` where there is none.

        ``request["last"]`` is the last number that any of its events has had.
        """
        done = await self._session.execute(
            update(ResponseRow)
            .where(
                ResponseRow.project == project,
                ResponseRow.id == response_id,
                ResponseRow.status.in_(UNFINISHED),
            )
            .values(status="in_progress", attempt=ResponseRow.attempt + 1, touched_at=now())
            .returning(ResponseRow.id),
            execution_options={"synchronize_session": False},
        )
        if done.first() is None:
            return None
        row = await self.find(project, response_id)
        if row is not None and row.request is not None:
            # What an earlier attempt said after its checkpoint is forgotten, but not its numbers:
            # who has read them goes on behind them.
            checkpoint = row.request["checkpoint"]
            last = await self.drop_events(response_id, checkpoint)
            last = max(last, checkpoint, row.request.get("last", 0))
            row.request = {**row.request, "last": last}
            row.body = {**row.body, "status": row.status}
        return row

    async def save(self, project: str, response_id: str, attempt: int, **values: Any) -> bool:
        """Write this down; False where the response is over, gone, or another worker's."""
        done = await self._session.execute(
            update(ResponseRow)
            .where(
                ResponseRow.project == project,
                ResponseRow.id == response_id,
                ResponseRow.attempt == attempt,
                ResponseRow.status == "in_progress",
            )
            .values(touched_at=now(), **values)
            .returning(ResponseRow.id),
            execution_options={"synchronize_session": False},
        )
        if done.first() is None:
            return False
        if "output" in values:
            await self._session.execute(
                delete(ResponseItemRow).where(
                    ResponseItemRow.project == project, ResponseItemRow.response_id == response_id
                )
            )
            await self._index(project, response_id, values["output"])
        return True

    async def cancel(
        self, project: str, response_id: str, body: dict[str, Any], output: list[Any]
    ) -> None:
        """It is over for all who work on it."""
        await self._session.execute(
            update(ResponseRow)
            .where(
                ResponseRow.project == project,
                ResponseRow.id == response_id,
                ResponseRow.status.in_(UNFINISHED),
            )
            .values(status="cancelled", body=body, output=output, request=None),
            execution_options={"synchronize_session": False},
        )

    async def touch(self, response_ids: Sequence[str]) -> None:
        """Say that a process still has these, of any project."""
        await self._session.execute(
            update(ResponseRow)
            .where(ResponseRow.id.in_(response_ids), ResponseRow.status.in_(UNFINISHED))
            .values(touched_at=now()),
            execution_options={"synchronize_session": False},
        )

    async def progress(self, project: str, response_id: str) -> tuple[str, int, bool] | None:
        """Status, attempt, and whether events are kept, without reading the rest."""
        row = ResponseRow
        found = await self._session.execute(
            select(row.status, row.attempt, row.streamed).where(
                row.project == project, row.id == response_id
            )
        )
        one = found.first()
        return None if one is None else (one[0], one[1], one[2])

    async def forgotten(self, older_than_seconds: int, limit: int) -> list[tuple[str, str]]:
        """Unfinished private ones that no process has touched for so long: project and id."""
        row = ResponseRow
        found = await self._session.execute(
            select(row.project, row.id)
            .where(
                row.status.in_(UNFINISHED),
                row.private.is_(True),
                row.touched_at <= now() - older_than_seconds,
            )
            .order_by(row.touched_at)
            .limit(limit)
        )
        return [(project, response_id) for project, response_id in found]

    # Events.

    async def add_events(self, response_id: str, first: int, last: int, events: str) -> None:
        await self._session.execute(
            insert(ResponseEventsRow).values(
                response_id=response_id, first=first, last=last, events=events
            )
        )

    async def drop_events(self, response_id: str, after: int) -> int:
        """Forget the events after this number; the last number that was used."""
        row = ResponseEventsRow
        found = await self._session.execute(
            select(row.last)
            .where(row.response_id == response_id)
            .order_by(row.last.desc())
            .limit(1)
        )
        last = found.scalar_one_or_none()
        await self._session.execute(
            delete(row).where(row.response_id == response_id, row.first > after)
        )
        return -1 if last is None else last

    async def events(self, response_id: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Runs of events with one after this number: the last number of each, and the events."""
        row = ResponseEventsRow
        found = await self._session.execute(
            select(row.last, row.events)
            .where(row.response_id == response_id, row.last > after)
            .order_by(row.first)
            .limit(limit)
        )
        return [(last, events) for last, events in found]

    async def _index(
        self, project: str, response_id: str, output: Sequence[dict[str, Any]]
    ) -> None:
        if output:
            await self._session.execute(
                insert(ResponseItemRow),
                [
                    {"id": item["id"], "project": project, "response_id": response_id}
                    for item in output
                ],
            )
