"""``/v1/responses``: create, list, retrieve, delete, cancel, input items, tokens, compact."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, cast

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.errors import GatewayError
from gateway.http.answered_by import AnsweredBy
from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.relay.admission import ComposedAdmission
from gateway.responses.answer import StreamedResponse
from gateway.responses.background import BackgroundResponses
from gateway.responses.compaction import CompactionService
from gateway.responses.schemas import (
    CompactedResponse,
    CompactRequest,
    CreateResponse,
    DeletedResponse,
    InputItems,
    InputTokens,
    InputTokensRequest,
)
from gateway.responses.service import ResponseService
from gateway.responses.stream import Sink

__all__ = ["response_routes"]

PREFIXES = ("/v1", "/v1/openai/v1")
MOST_EVENTS = 2**31 - 1
"""Which no stream has; databases know no larger numbers."""
POLL = "openai-poll-after-ms"
POLL_MILLISECONDS = "1000"

ResponseId = Annotated[str, PathParameter(description="The response's id.")]
Limit = Annotated[int | None, QueryParameter(description="1 to 100.")]
Order = Annotated[str | None, QueryParameter(description="asc or desc.")]
After = Annotated[str | None, QueryParameter(description="The id before the page.")]
Before = Annotated[str | None, QueryParameter(description="The id behind it.")]


def response_routes(  # noqa: C901  (one function that holds the handlers)
    service: ResponseService,
    background: BackgroundResponses,
    compaction: CompactionService,
    admission: ComposedAdmission,
    *,
    max_body_bytes: int,
    heartbeat: float,
) -> list[HTTPRouteHandler]:
    @post(
        _paths("/responses"),
        status_code=200,
        name="createResponse",
        summary="Create a model response",
        tags=["Responses"],
        opt={TAKES: CreateResponse},
    )
    async def create_response(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[dict[str, Any]]:
        body = await read_body(request, dict[str, Any], max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]
            assignment = await service.prepare(principal, body)
            wanted = assignment.run.request
            admitted = partial(
                admission.composed,
                request.scope,  # type: ignore[arg-type]
                wanted.model,
                wanted.max_output_tokens,
            )
            if wanted.background:
                async with admitted():
                    queued = await background.begin(assignment, body, activity)
                if not wanted.stream:
                    return _polled(queued)
            elif not wanted.stream:
                async with admitted():
                    await service.complete(assignment, activity)
                return Response(assignment.run.shown())
        if wanted.background:
            follow = background.follower(principal, assignment.run.id, after=-1)
            return AnsweredBy(StreamedResponse(follow, heartbeat=heartbeat, hold=False))

        async def perform(sink: Sink) -> GatewayError | None:
            async with admitted():  # while nothing is out, so that a refusal has its status
                return await service.perform(assignment, activity, sink)

        return AnsweredBy(StreamedResponse(perform, heartbeat=heartbeat))

    @get(
        _paths("/responses"),
        name="listResponses",
        summary="List responses (LlamaStack)",
        tags=["Responses"],
    )
    async def list_responses(
        principal: NamedDependency[Principal],
        model: Annotated[str | None, QueryParameter(description="Only of this model.")] = None,
        limit: Limit = None,
        order: Order = None,
        after: After = None,
    ) -> InputItems:
        return await service.list(principal, model=model, limit=limit, order=order, after=after)

    @get(
        _paths("/responses/{response_id:str}"),
        name="getResponse",
        summary="Retrieve a model response, or its stream",
        tags=["Responses"],
    )
    async def retrieve_response(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        response_id: ResponseId,
        *,
        stream: Annotated[bool, QueryParameter(description="As events.")] = False,
        starting_after: Annotated[
            int | None, QueryParameter(description="Only events after this sequence number.")
        ] = None,
    ) -> Response[dict[str, Any]]:
        if stream:
            after = -1 if starting_after is None else min(max(starting_after, -1), MOST_EVENTS)
            await background.check_stream(principal, response_id)
            follow = background.follower(principal, response_id, after=after)
            return AnsweredBy(StreamedResponse(follow, heartbeat=heartbeat, hold=False))
        return _polled(await service.retrieve(principal, response_id, _include(request)))

    @delete(
        _paths("/responses/{response_id:str}"),
        status_code=200,
        name="deleteResponse",
        summary="Delete a model response",
        tags=["Responses"],
    )
    async def delete_response(
        principal: NamedDependency[Principal], response_id: ResponseId
    ) -> DeletedResponse:
        return await service.delete(principal, response_id)

    @post(
        _paths("/responses/{response_id:str}/cancel"),
        status_code=200,
        name="cancelResponse",
        summary="Cancel a response that is in the background",
        tags=["Responses"],
    )
    async def cancel_response(
        principal: NamedDependency[Principal], response_id: ResponseId
    ) -> Response[dict[str, Any]]:
        return Response(await background.cancel(principal, response_id))

    @get(
        _paths("/responses/{response_id:str}/input_items"),
        name="listInputItems",
        summary="List the input items of a response",
        tags=["Responses"],
    )
    async def list_input_items(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        response_id: ResponseId,
        limit: Limit = None,
        order: Order = None,
        after: After = None,
        before: Before = None,
    ) -> InputItems:
        return await service.input_items(
            principal,
            response_id,
            limit=limit,
            order=order,
            after=after,
            before=before,
            include=_include(request),
        )

    @post(
        _paths("/responses/input_tokens"),
        status_code=200,
        name="Getinputtokencounts",
        summary="Count the input tokens of a response",
        tags=["Responses"],
        opt={TAKES: InputTokensRequest},
    )
    async def count_input_tokens(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> InputTokens:
        body = await read_body(request, dict[str, Any], max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await compaction.input_tokens(principal, activity, body)

    @post(
        _paths("/responses/compact"),
        status_code=200,
        name="Compactconversation",
        summary="Sum up a conversation in one item",
        tags=["Responses"],
        opt={TAKES: CompactRequest},
    )
    async def compact_response(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> CompactedResponse:
        asked = await read_body(request, CompactRequest, max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]
            async with admission.composed(
                request.scope,  # type: ignore[arg-type]
                asked.model,
                None,
            ):
                return await compaction.compact(principal, activity, asked)

    return [
        create_response,
        list_responses,
        retrieve_response,
        delete_response,
        cancel_response,
        list_input_items,
        count_input_tokens,
        compact_response,
    ]


def _paths(path: str) -> list[str]:
    return [prefix + path for prefix in PREFIXES]


def _include(request: Request[Any, Any, Any]) -> list[str] | None:
    """Clients write lists in a query in two ways."""
    query = request.query_params
    return [*query.getall("include[]", []), *query.getall("include", [])] or None


def _polled(shown: dict[str, Any]) -> Response[dict[str, Any]]:
    """With a word on when to ask again, while it is worth asking."""
    unfinished = shown["status"] in ("queued", "in_progress")
    headers = {POLL: POLL_MILLISECONDS} if unfinished else {}
    return Response(shown, headers=cast("dict[str, Any]", headers))
