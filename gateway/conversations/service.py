"""Conversations: what was said, kept in order."""

from __future__ import annotations

import re
from typing import Any

from gateway.conversations.repository import ConversationRepository
from gateway.conversations.schemas import (
    MAX_ITEMS_AT_ONCE,
    ConversationObject,
    CreateConversation,
    CreateItems,
    DeletedConversation,
    UpdateConversation,
)
from gateway.database.engine import Database
from gateway.database.identifiers import long_id, seconds, sequence
from gateway.database.paging import PageRequest
from gateway.database.tables import ConversationRow
from gateway.errors import InvalidRequest, NotFound
from gateway.http.pages import Page
from gateway.identity.principal import Principal
from gateway.items.including import Include, shown
from gateway.items.parsing import parse_items
from gateway.profile import Profile
from gateway.vector_stores.properties import check_metadata

__all__ = ["ConversationService"]

_ID = re.compile(r"conv_[0-9a-f]{48}")
_ITEMS = "items"


class ConversationService:
    """The Conversations API."""

    def __init__(self, database: Database, profile: Profile) -> None:
        self._database = database
        self._profile = profile

    async def create(self, principal: Principal, wanted: CreateConversation) -> ConversationObject:
        metadata = check_metadata(wanted.metadata)
        given = _parsed(wanted.items or [])
        row = ConversationRow(
            id=long_id("conv_"), project=principal.project, sequence=sequence(), metadata_=metadata
        )
        async with self._database.begin() as session:
            conversations = ConversationRepository(session)
            items = await _resolved(conversations, principal.project, given)
            conversations.add(row)
            await session.flush()
            await conversations.append(principal.project, row.id, items)
        return _shown(row)

    async def retrieve(self, principal: Principal, conversation_id: str) -> ConversationObject:
        """Raises ``NotFound``, as the others do."""
        self._check_id(conversation_id)
        async with self._database.read() as session:
            conversations = ConversationRepository(session)
            return _shown(await _found(conversations, principal.project, conversation_id))

    async def update(
        self, principal: Principal, conversation_id: str, wanted: UpdateConversation
    ) -> ConversationObject:
        self._check_id(conversation_id)
        metadata = check_metadata(wanted.metadata)
        async with self._database.begin() as session:
            row = await _found(
                ConversationRepository(session), principal.project, conversation_id, hold=True
            )
            row.metadata_ = metadata
        return _shown(row)

    async def delete(self, principal: Principal, conversation_id: str) -> DeletedConversation:
        """With all its items, for good."""
        self._check_id(conversation_id)
        async with self._database.begin() as session:
            if not await ConversationRepository(session).delete(principal.project, conversation_id):
                raise _unknown(conversation_id)
        return DeletedConversation(id=conversation_id)

    async def create_items(
        self,
        principal: Principal,
        conversation_id: str,
        wanted: CreateItems,
        include: frozenset[Include],
    ) -> Page[dict[str, Any]]:
        """Add items at the end; all of them, or none. Answers those that were added."""
        self._check_id(conversation_id)
        project = principal.project
        given = _parsed(wanted.items)
        async with self._database.begin() as session:
            conversations = ConversationRepository(session)
            await _found(conversations, project, conversation_id, hold=True)
            items = await _resolved(conversations, project, given)
            ids = [item["id"] for item in items]
            if there := await conversations.present(project, conversation_id, ids):
                raise _already_there(min(there), ids.index(min(there)))
            await conversations.append(project, conversation_id, items)
        return self._page([shown(item, include) for item in items], has_more=False)

    async def list_items(
        self,
        principal: Principal,
        conversation_id: str,
        page: PageRequest,
        include: frozenset[Include],
    ) -> Page[dict[str, Any]]:
        self._check_id(conversation_id)
        async with self._database.read() as session:
            conversations = ConversationRepository(session)
            await _found(conversations, principal.project, conversation_id)
            rows = await conversations.page(principal.project, conversation_id, page)
        items = [shown(row.body, include) for row in rows[: page.limit]]
        return self._page(items, has_more=len(rows) > page.limit)

    async def retrieve_item(
        self,
        principal: Principal,
        conversation_id: str,
        item_id: str,
        include: frozenset[Include],
    ) -> dict[str, Any]:
        self._check_id(conversation_id)
        async with self._database.read() as session:
            conversations = ConversationRepository(session)
            await _found(conversations, principal.project, conversation_id)
            item = await conversations.item(principal.project, conversation_id, item_id)
        if item is None:
            raise _unknown_item(item_id)
        return shown(item, include)

    async def delete_item(
        self, principal: Principal, conversation_id: str, item_id: str
    ) -> ConversationObject:
        """For good. Answers the conversation."""
        self._check_id(conversation_id)
        async with self._database.begin() as session:
            conversations = ConversationRepository(session)
            row = await _found(conversations, principal.project, conversation_id)
            if not await conversations.delete_item(principal.project, conversation_id, item_id):
                raise _unknown_item(item_id)
        return _shown(row)

    def _page(self, items: list[dict[str, Any]], *, has_more: bool) -> Page[dict[str, Any]]:
        empty = self._profile.empty_cursor
        return Page(
            data=items,
            has_more=has_more,
            first_id=items[0]["id"] if items else empty,
            last_id=items[-1]["id"] if items else empty,
        )

    def _check_id(self, conversation_id: str) -> None:
        if _ID.fullmatch(conversation_id) is None:
            raise self._profile.malformed_conversation_id(
                f"Conversation with id '{conversation_id[:100]}' not found.",
                param="conversation_id",
            )


def _parsed(items: list[Any]) -> list[dict[str, Any]]:
    if len(items) > MAX_ITEMS_AT_ONCE:
        raise InvalidRequest(
            f"Invalid '{_ITEMS}': array too long. Expected an array with maximum length "
            f"{MAX_ITEMS_AT_ONCE}, but got an array with length {len(items)} instead.",
            param=_ITEMS,
            code="array_above_max_length",
        )
    return parse_items(items, _ITEMS)


async def _resolved(
    conversations: ConversationRepository, project: str, items: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The items, with those that references name in their place."""
    whole: dict[str, dict[str, Any]] = {}
    for position, given in enumerate(items):
        item: dict[str, Any] | None = given
        if given["type"] == "item_reference":
            item = await conversations.find_item(project, given["id"])
            if item is None:
                raise _unknown_item(given["id"], param=f"{_ITEMS}[{position}].id")
        assert item is not None  # given, or found
        if item["id"] in whole:
            raise _already_there(item["id"], position)
        whole[item["id"]] = item
    return list(whole.values())


async def _found(
    conversations: ConversationRepository,
    project: str,
    conversation_id: str,
    *,
    hold: bool = False,
) -> ConversationRow:
    row = await conversations.find(project, conversation_id, hold=hold)
    if row is None:
        raise _unknown(conversation_id)
    return row


def _shown(row: ConversationRow) -> ConversationObject:
    return ConversationObject(
        id=row.id, created_at=seconds(row.sequence), metadata=dict(row.metadata_)
    )


def _unknown(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation with id '{conversation_id}' not found.", param="conversation_id")


def _unknown_item(item_id: str, param: str = "item_id") -> NotFound:
    return NotFound(f"Item with id '{item_id[:100]}' not found.", param=param)


def _already_there(item_id: str, position: int) -> InvalidRequest:
    return InvalidRequest(
        f"An item with the id '{item_id}' is already in the conversation.",
        param=f"{_ITEMS}[{position}].id",
        code="invalid_value",
    )
