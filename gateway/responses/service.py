"""Responses: made at once, kept, read again, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.conversations.repository import ConversationRepository
from gateway.database.engine import Database
from gateway.database.identifiers import sequence
from gateway.database.paging import PageRequest
from gateway.database.tables import ResponseRow
from gateway.errors import GatewayError, NotFound, ShuttingDown
from gateway.http.pages import page_request
from gateway.identity.principal import Principal
from gateway.items.including import includes, shown
from gateway.observability.activity import Activity
from gateway.profile import Profile
from gateway.responses.assignment import Assignment
from gateway.responses.performance import Performer
from gateway.responses.preparation import Preparation
from gateway.responses.repository import ResponseRepository
from gateway.responses.run import shown_response
from gateway.responses.schemas import DeletedResponse, InputItems
from gateway.responses.stream import Nowhere, ResponseStream, Sink
from gateway.settings import ResponseSettings

__all__ = ["ResponseService", "row_of"]

_LISTED = 50
_MOST_LISTED = 100


class ResponseService:
    """The Responses API, but for what runs in the background."""

    def __init__(
        self,
        database: Database,
        preparation: Preparation,
        performer: Performer,
        profile: Profile,
        settings: ResponseSettings,
    ) -> None:
        self._database = database
        self._preparation = preparation
        self._performer = performer
        self._profile = profile
        self._settings = settings

    async def prepare(self, principal: Principal, body: Mapping[str, Any]) -> Assignment:
        """Check the request; raises ``InvalidRequest``, ``NotFound`` and ``ModelNotFound``."""
        assignment = await self._preparation.prepare(principal, body)
        await self._performer.check(assignment)
        return assignment

    async def create(
        self, principal: Principal, activity: Activity, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The response object, stored where that is wanted. Raises the error that it failed with,
        and keeps nothing then: the caller has no id of it.
        """
        assignment = await self.prepare(principal, body)
        await self.complete(assignment, activity)
        return assignment.run.shown()

    async def complete(self, assignment: Assignment, activity: Activity) -> None:
        """Make the response, to nobody's eyes."""
        await self.perform(assignment, activity, Nowhere())

    async def perform(
        self, assignment: Assignment, activity: Activity, sink: Sink
    ) -> GatewayError | None:
        """Make the response and store it, before the last event says that it is there.

        While ``sink`` has shown nothing to anybody, an error is raised; later it is the stream's
        last event, is stored, and is returned.
        """
        run = assignment.run
        stream = ResponseStream(run, sink)
        error: GatewayError | None = None
        try:
            await stream.respond("response.created")
            await stream.respond("response.in_progress")
            await self._performer.perform(assignment, stream, activity)
            await self._store(assignment)
        except GatewayError as raised:
            if not sink.begun:
                raise
            error = raised
            run.fail(error)
            await self._store_failure(assignment)
        except asyncio.CancelledError:
            # The caller left and reads nothing more, or the gateway ends and it has to be told.
            if sink.begun:
                run.fail(ShuttingDown("The gateway is shutting down."))
                await stream.respond(run.event)
            raise
        await stream.respond(run.event)
        return error

    async def retrieve(
        self, principal: Principal, response_id: str, include: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Raises ``NotFound``, as the others do."""
        chosen = includes(include or ())
        row = await self.find(principal, response_id)
        return shown_response(row.body, row.output, chosen)

    async def list(
        self,
        principal: Principal,
        *,
        model: str | None,
        limit: int | None,
        order: str | None,
        after: str | None,
    ) -> InputItems:
        """LlamaStack's list; each response comes with its ``input``."""
        page = page_request(
            limit=limit, order=order, after=after, default=_LISTED, most=_MOST_LISTED
        )
        async with self._database.read() as session:
            rows = await ResponseRepository(session).page(principal.project, model, page)
        has_more = len(rows) > page.limit
        data = [
            {**shown_response(row.body, row.output, frozenset()), "input": row.input}
            for row in rows[: page.limit]
        ]
        return _page(data, has_more=has_more, empty=self._profile.empty_cursor)

    async def delete(self, principal: Principal, response_id: str) -> DeletedResponse:
        """Gone at once, with all that it held; one in the background ends."""
        async with self._database.begin() as session:
            if not await ResponseRepository(session).delete(principal.project, response_id):
                raise unknown(response_id)
        return DeletedResponse(id=response_id)

    async def input_items(
        self,
        principal: Principal,
        response_id: str,
        *,
        limit: int | None,
        order: str | None,
        after: str | None,
        before: str | None,
        include: Sequence[str] | None,
    ) -> InputItems:
        """What the response was made of: the items of earlier responses, and its own input."""
        chosen = includes(include or ())
        page = page_request(limit=limit, order=order, after=after, before=before)
        row = await self.find(principal, response_id)
        items = list(row.input)
        if row.previous_id is not None:
            async with self._database.read() as session:
                chain = await ResponseRepository(session).chain(
                    principal.project, row.previous_id, self._settings.max_context_items
                )
            items = [item for one in chain for item in [*one.input, *one.output]] + items
        part, has_more = _part(items, page)
        data = [shown(item, chosen) for item in part]
        return _page(data, has_more=has_more, empty=self._profile.empty_cursor)

    async def find(self, principal: Principal, response_id: str) -> ResponseRow:
        async with self._database.read() as session:
            row = await ResponseRepository(session).find(principal.project, response_id)
        if row is None:
            raise unknown(response_id)
        return row

    async def _store(self, assignment: Assignment) -> None:
        run = assignment.run
        conversation = run.request.conversation_id
        if not run.request.stored and conversation is None:
            return
        async with self._database.begin() as session:
            if run.request.stored:
                await ResponseRepository(session).add(row_of(assignment))
            if conversation is not None:
                await ConversationRepository(session).append(
                    assignment.principal.project,
                    conversation,
                    [*assignment.context.input, *run.output],
                )

    async def _store_failure(self, assignment: Assignment) -> None:
        """What failed is kept where the caller has its id, if the database can."""
        if not assignment.run.request.stored:
            return
        try:
            async with self._database.begin() as session:
                await ResponseRepository(session).add(row_of(assignment))
        except GatewayError:
            return  # the failure at hand may be the database's; its outage is logged there


def row_of(assignment: Assignment) -> ResponseRow:
    """The response as it is stored."""
    run = assignment.run
    return ResponseRow(
        id=run.id,
        project=assignment.principal.project,
        sequence=sequence(),
        model=run.request.model,
        status=run.status,
        background=run.request.background is True,
        previous_id=run.request.previous_response_id,
        conversation_id=run.request.conversation_id,
        body=run.body(),
        input=assignment.context.input,
        output=run.output,
    )


def unknown(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:120]}' not found.", param="response_id")


def _part(items: list[dict[str, Any]], page: PageRequest) -> tuple[list[dict[str, Any]], bool]:
    """The page of a list that is all there; a cursor that isn't in it is ignored."""
    if page.order == "desc":
        items = [*reversed(items)]
    places = {item["id"]: place for place, item in enumerate(items)}
    if page.after in places:
        items = items[places[page.after] + 1 :]
    elif page.before in places:
        items = items[: places[page.before]]
        return items[-page.limit :], len(items) > page.limit
    return items[: page.limit], len(items) > page.limit


def _page(data: list[dict[str, Any]], *, has_more: bool, empty: str | None) -> InputItems:
    return InputItems(
        data=data,
        first_id=data[0]["id"] if data else empty,
        last_id=data[-1]["id"] if data else empty,
        has_more=has_more,
    )
