"""``/v1/chat/completions`` beside its ``POST``: list, retrieve, update, delete, messages."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.database.paging import Order
from gateway.http.pages import Page, page_request
from gateway.http.requests import TAKES, query_map, read_body
from gateway.identity.principal import Principal
from gateway.stored_completions.schemas import DeletedCompletion, UpdateCompletion
from gateway.stored_completions.service import StoredCompletionService

__all__ = ["stored_completion_routes"]

PATHS = [f"{prefix}/chat/completions" for prefix in ("/v1", "/v1/openai/v1")]
ONE = [f"{path}/{{completion_id:str}}" for path in PATHS]
TAGS = ("Chat",)

CompletionId = Annotated[str, PathParameter(description="The chat completion's id.")]
LIMIT = QueryParameter(description="1 to 100; 20 when left out.")
ORDER = QueryParameter(description="By time: asc or desc.")
AFTER = QueryParameter(description="The id before the page.")
MODEL = QueryParameter(description="Only of this model.")


def stored_completion_routes(
    service: StoredCompletionService, order_of_list: Order
) -> list[HTTPRouteHandler]:
    """``order_of_list`` is taken where a caller names none."""

    @get(PATHS, name="listChatCompletions", summary="List stored chat completions", tags=TAGS)
    async def list_completions(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        model: Annotated[str | None, MODEL] = None,
        limit: Annotated[int | None, LIMIT] = None,
        order: Annotated[str | None, ORDER] = None,
        after: Annotated[str | None, AFTER] = None,
    ) -> Page[dict[str, Any]]:
        page = page_request(
            limit=limit, order=order_of_list if order is None else order, after=after
        )
        pairs = query_map(request, "metadata")
        return await service.list(principal, page, model=model, metadata=pairs)

    @get(ONE, name="getChatCompletion", summary="Retrieve a stored chat completion", tags=TAGS)
    async def get_completion(
        principal: NamedDependency[Principal], completion_id: CompletionId
    ) -> dict[str, Any]:
        return await service.retrieve(principal, completion_id)

    @post(
        ONE,
        name="updateChatCompletion",
        summary="Update the metadata of a stored chat completion",
        tags=TAGS,
        status_code=200,
        opt={TAKES: UpdateCompletion},
    )
    async def update_completion(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        completion_id: CompletionId,
    ) -> dict[str, Any]:
        wanted = await read_body(request, UpdateCompletion)
        return await service.update(principal, completion_id, wanted)

    @delete(
        ONE,
        name="deleteChatCompletion",
        summary="Delete a stored chat completion",
        tags=TAGS,
        status_code=200,
    )
    async def delete_completion(
        principal: NamedDependency[Principal], completion_id: CompletionId
    ) -> DeletedCompletion:
        return await service.delete(principal, completion_id)

    @get(
        [f"{path}/messages" for path in ONE],
        name="getChatCompletionMessages",
        summary="List the messages of a stored chat completion",
        tags=TAGS,
    )
    async def list_messages(
        principal: NamedDependency[Principal],
        completion_id: CompletionId,
        limit: Annotated[int | None, LIMIT] = None,
        order: Annotated[str | None, ORDER] = None,
        after: Annotated[str | None, AFTER] = None,
    ) -> Page[dict[str, Any]]:
        page = page_request(limit=limit, order="asc" if order is None else order, after=after)
        return await service.messages(principal, completion_id, page)

    return [list_completions, get_completion, update_completion, delete_completion, list_messages]
