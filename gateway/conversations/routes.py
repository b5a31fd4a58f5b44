"""``/v1/conversations`` and their items."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.conversations.schemas import (
    ConversationObject,
    CreateConversation,
    CreateItems,
    DeletedConversation,
    UpdateConversation,
)
from gateway.conversations.service import ConversationService
from gateway.http.pages import Page, page_request
from gateway.http.requests import TAKES, query_list, read_body
from gateway.identity.principal import Principal
from gateway.items.including import Include, includes

__all__ = ["conversation_routes"]

PATHS = [f"{prefix}/conversations" for prefix in ("/v1", "/v1/openai/v1")]
ONE = [f"{path}/{{conversation_id:str}}" for path in PATHS]
ITEMS = [f"{path}/items" for path in ONE]
ITEM = [f"{path}/{{item_id:str}}" for path in ITEMS]
TAGS = ("Conversations",)

ConversationId = Annotated[str, PathParameter(description="The conversation's id.")]
ItemId = Annotated[str, PathParameter(description="The item's id.")]
INCLUDE = QueryParameter(description="What to show that is hidden otherwise; may be repeated.")
Included = Annotated[list[str] | None, INCLUDE]


def conversation_routes(service: ConversationService, max_bytes: int) -> list[HTTPRouteHandler]:
    """``max_bytes`` bounds a body with items."""

    @post(
        PATHS,
        name="createConversation",
        summary="Create a conversation",
        tags=TAGS,
        status_code=200,
        opt={TAKES: CreateConversation},
    )
    async def create_conversation(
        request: Request[Any, Any, Any], principal: NamedDependency[Principal]
    ) -> ConversationObject:
        wanted = await read_body(request, CreateConversation, max_bytes)
        return await service.create(principal, wanted)

    @get(ONE, name="getConversation", summary="Retrieve a conversation", tags=TAGS)
    async def get_conversation(
        principal: NamedDependency[Principal], conversation_id: ConversationId
    ) -> ConversationObject:
        return await service.retrieve(principal, conversation_id)

    @post(
        ONE,
        name="updateConversation",
        summary="Update a conversation's metadata",
        tags=TAGS,
        status_code=200,
        opt={TAKES: UpdateConversation},
    )
    async def update_conversation(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        conversation_id: ConversationId,
    ) -> ConversationObject:
        wanted = await read_body(request, UpdateConversation)
        return await service.update(principal, conversation_id, wanted)

    @delete(
        ONE,
        name="deleteConversation",
        summary="Delete a conversation with its items",
        tags=TAGS,
        status_code=200,
    )
    async def delete_conversation(
        principal: NamedDependency[Principal], conversation_id: ConversationId
    ) -> DeletedConversation:
        return await service.delete(principal, conversation_id)

    return [
        create_conversation,
        get_conversation,
        update_conversation,
        delete_conversation,
        *_item_routes(service, max_bytes),
    ]


def _item_routes(service: ConversationService, max_bytes: int) -> list[HTTPRouteHandler]:
    @post(
        ITEMS,
        name="createConversationItems",
        summary="Create items",
        tags=TAGS,
        status_code=200,
        opt={TAKES: CreateItems},
    )
    async def create_items(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        conversation_id: ConversationId,
        include: Included = None,  # noqa: ARG001  (for the OpenAPI document)
    ) -> Page[dict[str, Any]]:
        included = _included(request)
        wanted = await read_body(request, CreateItems, max_bytes)
        return await service.create_items(principal, conversation_id, wanted, included)

    @get(ITEMS, name="listConversationItems", summary="List items", tags=TAGS)
    async def list_items(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        conversation_id: ConversationId,
        limit: Annotated[int | None, QueryParameter(description="1 to 100; 20 by default.")] = None,
        order: Annotated[str | None, QueryParameter(description="asc, or desc (default).")] = None,
        after: Annotated[str | None, QueryParameter(description="The id before the page.")] = None,
        include: Included = None,  # noqa: ARG001  (for the OpenAPI document)
    ) -> Page[dict[str, Any]]:
        included = _included(request)
        page = page_request(limit=limit, order=order, after=after)
        return await service.list_items(principal, conversation_id, page, included)

    @get(ITEM, name="getConversationItem", summary="Retrieve an item", tags=TAGS)
    async def get_item(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        conversation_id: ConversationId,
        item_id: ItemId,
        include: Included = None,  # noqa: ARG001  (for the OpenAPI document)
    ) -> dict[str, Any]:
        included = _included(request)
        return await service.retrieve_item(principal, conversation_id, item_id, included)

    @delete(
        ITEM,
        name="deleteConversationItem",
        summary="Delete an item",
        tags=TAGS,
        status_code=200,
    )
    async def delete_item(
        principal: NamedDependency[Principal], conversation_id: ConversationId, item_id: ItemId
    ) -> ConversationObject:
        return await service.delete_item(principal, conversation_id, item_id)

    return [create_items, list_items, get_item, delete_item]


def _included(request: Request[Any, Any, Any]) -> frozenset[Include]:
    return includes(query_list(request, "include"))
